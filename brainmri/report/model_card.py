"""The model card in Markdown.

References
----------
M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from brainmri.evaluation.decision_metrics import RATE_NAMES
from brainmri.evaluation.metrics import METRIC_NAMES
from brainmri.report.formatting import escape_cell
from brainmri.report.rendering import render
from brainmri.report.run import Run


def render_model_card(run: Run) -> bytes:
    """Render the model card as Markdown, encoded as UTF-8."""
    counts = [f"{count} {escape_cell(name)}" for name, count in run.image_counts.items()]
    metrics = [
        (name, run.ensemble[metric], run.ensemble["interval"].get(metric))
        for metric, name in METRIC_NAMES.items()
    ]
    recalls = list(run.ensemble["recall"].items())
    return render(
        "model_card.md.j2",
        run=run,
        image_counts=counts,
        metrics=metrics,
        recalls=recalls,
        rate_names=RATE_NAMES,
    )
