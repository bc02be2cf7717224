"""The report: one page that needs no network and no other file."""

import base64
from dataclasses import dataclass
from pathlib import Path

from brainmri.common.paths import EVALUATION_PLOTS, EXPLANATION_PLOT
from brainmri.evaluation.decision_metrics import RATE_NAMES
from brainmri.evaluation.metrics import HEADLINES, METRIC_NAMES
from brainmri.evaluation.results import EnsembleMetrics, Interval, RuleMetrics, SetMetrics
from brainmri.report.formatting import format_interval
from brainmri.report.rendering import render
from brainmri.report.run import Run

Row = tuple[str | float | None, ...]  # of a table; all but texts are numbers

CAPTIONS = {
    EVALUATION_PLOTS / "members.png": (
        "Accuracy of the ensemble and of each member. Bar: 95 % interval, if there is one."
    ),
    EVALUATION_PLOTS / "confusion.png": "True and predicted classes of the test images.",
    EVALUATION_PLOTS / "roc_precision_recall.png": (
        "ROC and precision-recall curves: the trade-offs at other thresholds."
    ),
    EVALUATION_PLOTS / "reliability.png": (
        "Calibration: on the diagonal, accuracy equals confidence."
    ),
    EVALUATION_PLOTS / "risk_coverage.png": (
        "Accuracy against the fraction of images that is decided, the most confident ones first."
        " Point: those whose prediction set has a single class, if there are any."
    ),
    EVALUATION_PLOTS / "learning_curves.png": (
        "Training of the members: plain log loss and accuracy. Solid: out-of-bag images, on which"
        " the member was not trained; dotted: in-bag images, without augmentation."
    ),
    EVALUATION_PLOTS / "gallery.png": (
        "The hardest test images: those whose true class has the lowest probabilities."
    ),
    EXPLANATION_PLOT: (
        "Where the ensemble sees evidence for a finding (of more than two classes, for the"
        " predicted one), on one scale for all images: without evidence an image stays dark."
        " Outlined: the tumor, where it is known."
    ),
}
# Parameters that the stage does not depend on: a comment, and how members train in parallel; and
# the block that follows from the others.
NOT_SHOWN = {"about", "fan_out", "ensemble", "further_input"}
MAX_WIDTH = 1600  # pixels of a plot that is scaled to the page
SET_RATES = ("coverage", "mean_size", "decided", "decided_accuracy")
COMPARED = ("accuracy", "balanced_accuracy", "roc_auc", "log_loss")


@dataclass(frozen=True)
class Headline:
    """A metric with its interval."""

    name: str
    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Plot:
    """A plot that is part of the page.

    Attributes
    ----------
    url : str
        Data URL of the PNG file.
    caption : str
    is_wide : bool
        Whether the plot scrolls instead of being scaled to the page: of many classes, its letters
        are small already.
    """

    url: str
    caption: str
    is_wide: bool


def render_page(run: Run) -> bytes:
    """Render the report page as HTML, encoded as UTF-8."""
    by_patient = run.ensemble.get("by_patient", {})
    has_patients = "accuracy" in by_patient
    return render(
        "report.html.j2",
        run=run,
        headlines=headlines(run.ensemble),
        metrics=metric_rows(run.ensemble),
        recalls=recall_rows(run.ensemble),
        patients=patient_rows(run.ensemble),
        rates=rate_rows(run.ensemble["decision_rule"]),
        sets=set_rows(run.ensemble.get("prediction_sets")),
        patient_rates=rate_rows(by_patient["decision_rule"]) if has_patients else [],
        patient_sets=set_rows(by_patient.get("prediction_sets")) if has_patients else [],
        compared=[METRIC_NAMES[metric] for metric in COMPARED],
        voters=voter_rows(run.ensemble),
        members=member_rows(run),
        plots=[read_plot(path, caption) for path, caption in CAPTIONS.items()],
        images=image_rows(run),
        rejected=rejected_rows(run),
        parameters=parameter_rows(run.params.model_dump(exclude=NOT_SHOWN)),
    )


def rejected_rows(run: Run) -> list[Row]:
    """Return each skipped file and the reason; by its number if images' names are hashed.

    So it is where a reason names another file that is skipped.
    """
    rejected = run.metadata["rejected"]
    if run.params.evaluate.names == "plain":
        return [(file["path"], file["reason"]) for file in rejected]
    numbers = {file["path"]: f"number {number}" for number, file in enumerate(rejected)}
    number_of = {repr(path): number for path, number in numbers.items()}
    rows = []
    for file in rejected:
        reason, separator, other = file["reason"].partition(": ")
        rows.append((numbers[file["path"]], reason + separator + number_of.get(other, other)))
    return rows


def headlines(ensemble: EnsembleMetrics) -> list[Headline]:
    """Return the metrics at the top of the page."""
    return [
        Headline(METRIC_NAMES[metric], ensemble[metric], ensemble["interval"][metric])
        for metric in HEADLINES
    ]


def metric_rows(ensemble: EnsembleMetrics) -> list[Row]:
    """Return name and value of every metric on the test images."""
    return [(name, ensemble[metric]) for metric, name in METRIC_NAMES.items()]


def rate_rows(metrics: RuleMetrics) -> list[Row]:
    """Return name, value and interval of each rate of the positive class, if there is one."""
    if "rates" not in metrics:
        return []
    rates = metrics["rates"]
    rows: list[Row] = [
        (described, rates[name], format_interval(rates["interval"][name]))
        for name, described in RATE_NAMES.items()
    ]
    if at := metrics.get("at_prevalence"):
        for name, interval in at["interval"].items():
            where = f"{RATE_NAMES[name]} at a prevalence of {at['prevalence']:g}"
            rows.append((where, at[name], format_interval(interval)))
    return rows


def set_rows(metrics: SetMetrics | None) -> list[Row]:
    """Return the metrics of prediction sets, of all images and by class, with intervals."""
    if metrics is None:
        return []
    parts = {"all": metrics, **metrics["by_class"]}
    rows: list[Row] = []
    for name, part in parts.items():
        row: list[str | float | None] = [name]
        for rate in SET_RATES:
            row += [part[rate], format_interval(part["interval"][rate])]
        rows.append(tuple(row))
    return rows


def recall_rows(ensemble: EnsembleMetrics) -> list[Row]:
    """Return name, recall and number of independent groups of each class."""
    groups = ensemble["independent_groups"]
    return [(name, recall, groups.get(name)) for name, recall in ensemble["recall"].items()]


def patient_rows(ensemble: EnsembleMetrics) -> list[Row]:
    """Return name, value and interval of the headlines of the votes on patients, if there are."""
    by_patient = ensemble.get("by_patient", {})
    if "accuracy" not in by_patient:
        return []
    return [
        (METRIC_NAMES[name], by_patient[name], format_interval(by_patient["interval"][name]))
        for name in HEADLINES
    ]


def voter_rows(ensemble: EnsembleMetrics) -> list[Row]:
    """Return the `COMPARED` metrics of each voter on the test images."""
    best = ensemble["best_member"]
    voters = {
        "the ensemble": ensemble,
        "uniform vote": ensemble["uniform_vote"],
        f"best member by out-of-bag log loss ({best['name']})": best,
        "mean member": ensemble["mean_member"],
    }
    return [(voter, *(metrics[metric] for metric in COMPARED)) for voter, metrics in voters.items()]


def member_rows(run: Run) -> list[Row]:
    """Return the weight and the out-of-bag metrics of each member."""
    rows: list[Row] = []
    for name, member in run.weights.items():
        metrics = run.out_of_bag[name]
        rows.append(
            (name, member["weight"], metrics["accuracy"], metrics["log_loss"], metrics["images"])
        )
    return rows


def image_rows(run: Run) -> list[Row]:
    """Return the number of images, of training images and of test images of each class."""
    training, test = run.training_counts, run.test_counts
    return [(name, count, training[name], test[name]) for name, count in run.image_counts.items()]


def parameter_rows(values: dict, prefix: str = "") -> list[tuple[str, str]]:
    """Return the dotted name and the value of each parameter in nested blocks."""
    rows = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += parameter_rows(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", "null" if value is None else str(value)))
    return rows


def read_plot(path: Path, caption: str) -> Plot:
    """Read a PNG file as part of the page."""
    content = path.read_bytes()
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    width = int.from_bytes(content[16:20], "big")  # in the header of every PNG file
    return Plot(url, caption, width > MAX_WIDTH)
