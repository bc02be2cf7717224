"""Write tables and a figure of the accuracies in docs/results, which benchmarks.accuracy measured.

    python -m docs.make_results

Writes  docs/results/accuracy.png; the tables in README.md, README.es.md and docs/evaluation.md
"""

import json
import re
from pathlib import Path

from brainmri.common.files import write_bytes
from brainmri.evaluation.figures.layout import (
    ENSEMBLE_COLOR,
    MEMBER_COLOR,
    encode_png,
    new_figure,
    plot_style,
)

RESULTS = Path("docs/results")
FIGURE = RESULTS / "accuracy.png"
ENGLISH, SPANISH, PAGE = Path("README.md"), Path("README.es.md"), Path("docs/evaluation.md")
TABLE = re.compile(r"(<!-- results -->\n).*?(?=\n<!-- end of results -->)", re.DOTALL)
COLUMNS = ("", "members", "CPU time", "accuracy", "balanced accuracy", "ROC AUC", "log loss")
IN_SPANISH = {
    "members": "miembros",
    "CPU time": "tiempo de CPU",
    "balanced accuracy": "exactitud balanceada",
    "accuracy": "exactitud",
    "the default": "por defecto",
    "from scratch": "desde cero",
    "HOG and SVM": "HOG y SVM",
}
LABELS = {  # the order of the rows
    "default": "the default",
    "fine-tuned": "`-S preset=fine-tuned`",
    "scratch": "`-S preset=scratch`",
    "frozen": "`-S preset=frozen`",
    "original": "`-S preset=original`",
    "notebook-1": "`-S preset=notebook-1`",
    "notebook-2": "`-S preset=notebook-2`",
    "torchensemble": "TorchEnsemble, `residual` from scratch",
    "hog-svm": "HOG and SVM",
}
LIMITS, TICKS = (0.05, 60), (0.1, 0.3, 1, 3, 10, 30)  # minutes
METRICS = ("accuracy", "balanced_accuracy", "roc_auc", "log_loss")


def main() -> None:
    results = read_results()
    write_bytes(FIGURE, draw(results))
    for path, table in format_tables(results).items():
        text = path.read_text("utf-8")
        path.write_text(TABLE.sub(lambda match, new=table: match[1] + new, text), "utf-8")


def format_tables(results: dict[str, dict]) -> dict[Path, str]:
    """Return the table of each page."""
    table = format_table(results, with_intervals=False)
    with_intervals = format_table(results, with_intervals=True)
    return {ENGLISH: table, SPANISH: translate(table), PAGE: with_intervals}


def translate(table: str) -> str:
    """Put a table into Spanish, with decimal commas."""
    for english, spanish in IN_SPANISH.items():
        table = table.replace(english, spanish)
    return re.sub(r"(\d)\.(\d)", r"\1,\2", table)


def read_results() -> dict[str, dict]:
    """Read the results that there are, by name."""
    paths = {name: RESULTS / f"{name}.json" for name in LABELS}
    return {name: json.loads(path.read_bytes()) for name, path in paths.items() if path.exists()}


def format_table(results: dict[str, dict], with_intervals: bool) -> str:
    """Format a row of Markdown for each result."""
    lines = [f"| {' | '.join(COLUMNS)} |".replace("|  |", "| |"), "| --- " * len(COLUMNS) + "|"]
    for name, result in results.items():
        minutes = result["cpu_minutes"]
        cells = [LABELS[name], str(result["members"]), f"{minutes:.1f} min" if minutes else ""]
        for metric in METRICS:
            cell = f"{result['ensemble'][metric]:.3f}"
            if with_intervals:
                low, high = result["interval"][metric]
                cell += f" ({low:.3f} to {high:.3f})"
            cells.append(cell)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: dict[str, dict]) -> bytes:
    """Draw each result's accuracy, with its interval, against the CPU time of a fold, as PNG."""
    with plot_style():
        figure, axes = new_figure(7, 4)
        for name, result in results.items():
            if not result["cpu_minutes"]:
                continue
            accuracy = result["ensemble"]["accuracy"]
            low, high = result["interval"]["accuracy"]
            color = ENSEMBLE_COLOR if name == "default" else MEMBER_COLOR
            point = result["cpu_minutes"], accuracy
            axes.errorbar(*point, [[accuracy - low], [high - accuracy]], fmt="o", color=color)
            offset = (5, 7) if name == "default" else (5, -3)  # points
            axes.annotate(name, point, offset, textcoords="offset points", fontsize="small")
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes.minorticks_off()
        axes.set(
            xlim=LIMITS,
            xlabel="CPU time of a fold, minutes",
            ylabel="accuracy, 95 % interval",
            title="253 images, cross-validated",
        )
        return encode_png(figure)


if __name__ == "__main__":
    main()
