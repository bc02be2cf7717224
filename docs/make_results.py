"""Write the results of docs/results and metrics/ into the pages that show them.

    python -m docs.make_results

Writes  docs/results/accuracy.png; the tables in README.md, README.es.md and docs/evaluation.md; in
        both READMEs also the headline, what `evaluate` printed of the run in metrics/, and what
        the first run costs
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
from brainmri.evaluation.results import read_ensemble_metrics
from brainmri.evaluation.summary import describe_summary

RESULTS = Path("docs/results")
FIGURE = RESULTS / "accuracy.png"
ENGLISH, SPANISH, PAGE = Path("README.md"), Path("README.es.md"), Path("docs/evaluation.md")
PART = r"(<!-- {name} -->\n).*?(?=<!-- end of {name} -->)"
COLUMNS = ("", "members", "CPU time", "accuracy", "balanced accuracy", "ROC AUC", "log loss")
IN_SPANISH = {
    "members": "miembros",
    "CPU time": "tiempo de CPU",
    "balanced accuracy": "exactitud balanceada",
    "accuracy": "exactitud",
    "the default": "por defecto",
    "from scratch": "desde cero",
    "HOG and SVM": "HOG y SVM",
    "cores of an": "núcleos de un",
    " to ": " a ",
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
SENTENCES = {
    ENGLISH: {
        "headline": (
            "**Accuracy {accuracy:.3f}** ({interval}), ROC AUC {roc_auc:.3f}, on the {images}"
            " public images of [Brain MRI Images for Brain Tumor Detection]({url}), cross-validated"
            " with {seeds} seeds over {groups} groups of near duplicates.\n"
        ),
        "interval": "95 % interval {:.3f} to {:.3f}",
        "no interval": "no 95 % interval",
        "given test": (
            "On a public set of four classes with {test_images} given test images, after their near"
            " duplicates were excluded from training, the default reaches an accuracy of"
            " {accuracy} and a macro ROC AUC of {roc_auc}.\n"
        ),
        "start": (
            "On {machine}, `make repro` takes {minutes:.0f} minutes, {memory} GB of memory,"
            " {environment} GB of disk for the packages and {clone} GB for the clone.\n"
        ),
    },
    SPANISH: {
        "headline": (
            "**Exactitud {accuracy:.3f}** ({interval}), ROC AUC {roc_auc:.3f}, en las {images}"
            " imágenes públicas de [Brain MRI Images for Brain Tumor Detection]({url}), con"
            " validación cruzada de {seeds} semillas sobre {groups} grupos de casi duplicados.\n"
        ),
        "interval": "intervalo del 95 %: {:.3f} a {:.3f}",
        "no interval": "sin intervalo del 95 %",
        "given test": (
            "En un conjunto público de cuatro clases con {test_images} imágenes de prueba dadas,"
            " tras excluir del entrenamiento sus casi duplicados, la configuración por defecto"
            " alcanza una exactitud de {accuracy} y un ROC AUC macro de {roc_auc}.\n"
        ),
        "start": (
            "En {machine}, `make repro` toma {minutes:.0f} minutos, {memory} GB de memoria,"
            " {environment} GB de disco para los paquetes y {clone} GB para el clon.\n"
        ),
    },
}
URL = "https://www.kaggle.com/datasets/navoneel/brain-mri-images-for-brain-tumor-detection"
ERRORS = (0.1, 0.05, 0.04)  # error rates, of which docs/results has a file
METRIC_LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "expected_calibration_error": "expected calibration error",
}
LIMITS, TICKS = (0.01, 30), (0.01, 0.1, 1, 10)  # minutes
LABEL_OFFSETS = {  # points; others: right of the point
    "default": (-17, 21),
    "scratch": (-42, -3),
    "notebook-1": (-60, -3),
}
METRICS = ("accuracy", "balanced_accuracy", "roc_auc", "log_loss")


def main() -> None:
    results = read_results()
    write_bytes(FIGURE, draw(results))
    for path, parts in format_parts(results).items():
        text = path.read_text("utf-8")
        for name, content in parts.items():
            pattern = re.compile(PART.format(name=name), re.DOTALL)
            text = pattern.sub(lambda match, new=content: match[1] + new, text)
        path.write_text(text, "utf-8")


def format_parts(results: dict[str, dict]) -> dict[Path, dict[str, str]]:
    """Return what is between the markers of each page, by their name."""
    table = format_table(results, with_intervals=False)
    start = json.loads((RESULTS / "start.json").read_bytes())
    shared = {"evaluation": format_evaluation()}
    parts: dict[Path, dict[str, str]] = {
        PAGE: {
            "results": format_table(results, with_intervals=True),
            "seeds": format_seeds(),
            "sets": format_sets(),
            "given test": format_given_test(),
            "external": format_external(),
        }
    }
    for path, sentences in SENTENCES.items():
        localize = translate if path == SPANISH else str
        start_sentence = sentences["start"].format(minutes=start["seconds"] / 60, **start)
        parts[path] = {
            **shared,
            "results": localize(table),
            "headline": format_headline(sentences),
            "start": localize(start_sentence),
            "given test": localize(format_given_sentence(sentences["given test"])),
        }
    return parts


def read_given_test() -> dict[str, dict]:
    """Read the results of a given test set, by what becomes of its near duplicates in training."""
    return json.loads((RESULTS / "given-test.json").read_bytes())


def format_given_sentence(sentence: str) -> str:
    """Return the sentence on a given test set."""
    result = read_given_test()["drop"]
    values = {
        name: format_value(result[name], result["interval"][name])
        for name in ("accuracy", "roc_auc")
    }
    return sentence.format(test_images=result["test_images"], **values)


def format_given_test() -> str:
    """Return a table of the metrics on a given test set."""
    results = read_given_test()
    columns = [describe_given_test(results[overlap]) for overlap in ("drop", "keep")]
    lines = ["| | without near duplicates | with them |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {' | '.join(column[name] for column in columns)} |" for name in columns[0]
    ]
    return "\n".join([*lines, ""])


def describe_given_test(result: dict) -> dict[str, str]:
    """Return the cells of a result, by the name of their row."""
    intervals = result["interval"]
    return {
        "training images": f"{result['training_images']:,}",
        "test images": f"{result['test_images']:,}",
        "CPU time": format_time(result["cpu_minutes"]),
        **{
            label: format_value(result[name], intervals.get(name))
            for name, label in METRIC_LABELS.items()
        },
        **{f"recall of `{name}`": f"{value:.3f}" for name, value in result["recall"].items()},
    }


def format_external() -> str:
    """Return a table of the metrics on another collection, without near duplicates."""
    results = json.loads((RESULTS / "external.json").read_bytes())
    names = ("accuracy", "balanced_accuracy", "roc_auc")
    folders = next(iter(results.values()))["recall_by_folder"]
    header = ["", *(METRIC_LABELS[name] for name in names), *(f"`{name}`" for name in folders)]
    lines = [f"| {' | '.join(header)} |".replace("|  |", "| |"), "| --- " * len(header) + "|"]
    for name, result in results.items():
        part = result["without_near_duplicates"]
        cells = [LABELS[name], *(format_value(part[key], part["interval"][key]) for key in names)]
        cells += [f"{value:.3f}" for value in result["recall_by_folder"].values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def format_value(value: float, interval: list[float] | None) -> str:
    """Return a value with three decimals, and its interval if there is one."""
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def format_time(minutes: float | None) -> str:
    """Return a time in minutes, or in seconds if it is short; empty if it is unknown."""
    if minutes is None:
        return ""
    return f"{minutes:.1f} min" if minutes >= 0.1 else f"{60 * minutes:.0f} s"


def format_seeds() -> str:
    """Return a table of the default's metrics with several seeds."""
    result = json.loads((RESULTS / f"seeds-{ERRORS[0]:g}.json").read_bytes())
    seeds = list(result["seeds"])
    lines = [
        f"| | all seeds, 95 % interval | {' | '.join(f'seed {seed}' for seed in seeds)} |",
        "| --- " * (len(seeds) + 2) + "|",
    ]
    for name, label in METRIC_LABELS.items():
        cells = [label, format_value(result["ensemble"][name], result["interval"][name])]
        cells += [f"{result['seeds'][seed][name]:.3f}" for seed in seeds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def format_sets() -> str:
    """Return a table of the default's prediction sets with several error rates."""
    header = ["error rate", "coverage of `no`", "coverage of `yes`"]
    header += ["decided", "accuracy of these"]
    lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    for error in ERRORS:
        result = json.loads((RESULTS / f"seeds-{error:g}.json").read_bytes())
        sets = result["prediction_sets"]
        parts = [(sets["by_class"][name], "coverage") for name in ("no", "yes")]
        parts += [(sets, "decided"), (sets, "decided_accuracy")]
        cells = [f"{error:g}"]
        cells += [format_value(part[name], part["interval"][name]) for part, name in parts]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def format_headline(sentences: dict[str, str]) -> str:
    """Return the sentence on the default, cross-validated with several seeds."""
    result = json.loads((RESULTS / f"seeds-{ERRORS[0]:g}.json").read_bytes())
    limits = result["interval"]["accuracy"]
    interval = sentences["no interval"] if limits is None else sentences["interval"].format(*limits)
    return sentences["headline"].format(
        interval=interval,
        images=result["images"] // len(result["seeds"]),
        seeds=len(result["seeds"]),
        groups=sum(result["independent_groups"].values()),
        url=URL,
        **{name: result["ensemble"][name] for name in ("accuracy", "roc_auc")},
    )


def format_evaluation() -> str:
    """Return what `evaluate` prints of metrics/ensemble.json."""
    metrics = read_ensemble_metrics()
    return "\n".join(["```", *describe_summary(metrics), "```", ""])


def translate(table: str) -> str:
    """Translate a table into Spanish."""
    for english, spanish in IN_SPANISH.items():
        table = table.replace(english, spanish)
    return table


def read_results() -> dict[str, dict]:
    """Read the results that there are, by name."""
    paths = {name: RESULTS / f"{name}.json" for name in LABELS}
    return {name: json.loads(path.read_bytes()) for name, path in paths.items() if path.exists()}


def format_table(results: dict[str, dict], with_intervals: bool) -> str:
    """Format a row of Markdown for each result."""
    lines = [f"| {' | '.join(COLUMNS)} |".replace("|  |", "| |"), "| --- " * len(COLUMNS) + "|"]
    for name, result in results.items():
        cells = [LABELS[name], str(result["members"]), format_time(result["cpu_minutes"])]
        for metric in METRICS:
            interval = result["interval"][metric] if with_intervals else None
            cells.append(format_value(result["ensemble"][metric], interval))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def draw(results: dict[str, dict]) -> bytes:
    """Draw each result's accuracy, with its interval if any, against a fold's CPU time, as PNG."""
    with plot_style():
        figure, axes = new_figure(7, 4)
        for name, result in results.items():
            if not result["cpu_minutes"]:
                continue
            accuracy = result["ensemble"]["accuracy"]
            interval = result["interval"]["accuracy"]
            errors = None
            if interval is not None:
                errors = [[accuracy - interval[0]], [interval[1] - accuracy]]
            color = ENSEMBLE_COLOR if name == "default" else MEMBER_COLOR
            point = result["cpu_minutes"], accuracy
            axes.errorbar(*point, errors, fmt="o", color=color)
            offset = LABEL_OFFSETS.get(name, (5, -3))
            axes.annotate(name, point, offset, textcoords="offset points", fontsize="small")
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes.minorticks_off()
        axes.set(
            xlim=LIMITS,
            ylim=(None, 1),
            xlabel="CPU time of a fold, minutes",
            ylabel="accuracy, 95 % interval",
            title="253 images, cross-validated",
        )
        return encode_png(figure)


if __name__ == "__main__":
    main()
