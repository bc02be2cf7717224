"""Writes one page that tells all of a run, which needs no network and no other file, and the model card.

    dvc repro report

Reads   metrics, plots, data/rad/metadata.json, data/split.json, models/weights.json; params: all but `fan_out`
Writes  plots/report.html, docs/model-card.md
"""

import base64
import html
from collections import Counter
from pathlib import Path

from stages.shared import metrics
from stages.shared.files import read_json, write_bytes
from stages.shared.params import Params, load_params
from stages.shared.rad import Metadata, Split, read_metadata, read_split
from stages.shared.results import (
    EXPLAINED,
    EXPORTED,
    Explained,
    Exported,
    Figures,
    Weight,
    read_figures,
    read_out_of_bag,
    read_vote,
)
from stages.shared.running import run_stage

PICTURES = {
    "members": "Accuracy of the ensemble, with its interval, and of each member alone.",
    "confusion": "True and predicted classes of the test images.",
    "roc_precision_recall": "What can be had at other thresholds.",
    "reliability": "Whether the ensemble is as often right as it says: points on the diagonal mean yes.",
    "learning_curves": "How the members trained: plain log loss and accuracy. Solid: out-of-bag images, which the member"
    " was not trained on; dotted: in-bag images, without augmentation.",
    "gallery": "The test images that the ensemble got most wrong.",
    "explanations": "Where it sees evidence for a finding (of more than two classes, for the predicted one), on one scale for all"
    " images: without evidence an image stays dark. Outlined: the tumor, where it is known.",
}
NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "f1": "F1",
    "log_loss": "log loss, nats",
    "brier_score": "Brier score",
    "expected_calibration_error": "expected calibration error",
}
WIDEST = 1600  # pixels of a plot that is scaled to the page
MOST_LISTED = 10  # names in a sentence
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2733; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 2px solid #1b5e8c; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; padding: 0; }
.figures div { flex: 1 1 9rem; background: #eef4f8; border-radius: .5rem; padding: .75rem 1rem; }
.figures b { display: block; font-size: 1.9rem; line-height: 1.2; }
.warning { background: #fdecea; border-left: .4rem solid #b3261e; padding: .75rem 1rem; }
.wide { overflow-x: auto; margin: 1rem 0; } table { border-collapse: collapse; }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; border-bottom: 1px solid #d5dee5; vertical-align: top; }
td, p { overflow-wrap: anywhere; } td { min-width: 4rem; max-width: 40rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; break-inside: avoid; } img { max-width: 100%; height: auto; } .wide img { max-width: none; }
pre { overflow-x: auto; background: #eef4f8; padding: .75rem; }
@media print { body { font-size: 11px; max-width: none; } details > * { display: block; } h2 { break-after: avoid; } }
"""
MODEL_CARD = """# Model card

Written by `dvc repro report` from the figures of the run that `dvc.lock` records.

## The model
{members} CNNs (`{network}`), trained {start}, each on a sample (`{scheme}`) of the training images; a soft vote
weighed by `{weighed}`{calibrated}. Input: a grey slice
of {size}×{size} pixels. Output: the probability of each class, each member's probabilities, and how unlike the training images
the slice is. File: `models/ensemble.keras`.

## What it is for
Learning and research: how bagged CNNs on a small image set are trained, judged and repeated. **Not for clinical use**: no
diagnosis, treatment or triage may rest on it.

## Data
`{source}`: {whose}; {images} images ({classes}), {rejected} files left out. {training} to learn from,
{tested} to test on (fold {fold} of {folds}); near duplicates stay on one side.

## Figures, {tested} test images
| figure | value | 95 % interval |
| --- | --- | --- |
{figures}
{missing}
Mean member: accuracy {mean_accuracy:.3f}, ROC AUC {mean_auc}. How far such figures can be trusted, and figures
of real images: [evaluation.md](evaluation.md).

## Limits
- Age, sex, scanner and sequence of the images are not recorded, so differences between such groups could not be measured.
- The intervals tell what other images of the same collection might give, nothing of other hospitals. Check it on your own
  labelled images: `python -m predict --labels FOLDER`.
- It answers any picture. It warns of those unlike the training images, falsely of {warned:.1%} of the {tested} test images; an
  image without a warning may still be of a kind that it knows nothing about.
- Heat maps show evidence for a finding, which is no proof of why a class was predicted{seen}
"""


def main() -> None:
    params, metadata = load_params(), read_metadata()
    ensemble, explained, exported = read_figures(), read_json(EXPLAINED, Explained), read_json(EXPORTED, Exported)
    split = read_split(len(metadata["images"]))
    body = [
        heading(metadata, split, params),
        headline(ensemble),
        warning(params, ensemble),
        all_figures(ensemble),
        by_class(ensemble),
        comparison(ensemble, read_vote([*params.ensemble], metadata["classes"])["members"]),
        "<h2>Pictures</h2>",
        *(picture(name, caption) for name, caption in PICTURES.items()),
        explanation(explained),
        data(metadata, split),
        new_images(exported),
        parameters(params),
        reproduce(params),
    ]
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Brain MRI ensemble: report</title>
<style>{STYLE}</style>
</head>
<body>
{"".join(body)}
</body>
</html>
"""
    write_bytes("plots/report.html", page.encode("utf-8", "backslashreplace"))
    card = model_card(params, metadata, split, ensemble, explained, exported)
    write_bytes("docs/model-card.md", card.encode("utf-8", "backslashreplace"))
    print("plots/report.html: one page with every figure and picture")


def heading(metadata: Metadata, split: Split, params: Params) -> str:
    classes = text(listing(metadata["classes"]))
    return (
        "<h1>Brain MRI ensemble: report</h1>"
        f"<p>{len(params.ensemble)} CNNs (<code>{text(params.network.name)}</code>) that vote on images of the classes {classes}."
        f" They learned from {len(split['training'])} images of <code>{text(params.data.source)}</code> and were tested on"
        f" {len(split['test'])} others, none of which is a near duplicate of any that they learned from.</p>"
    )


def headline(ensemble: Figures) -> str:
    cards = []
    for name in metrics.HEADLINES:
        interval = between(ensemble, name)
        interval = f"95 % interval {interval}" if interval else "no interval"
        cards.append(f"<div>{NAMES[name]}<b>{number(ensemble[name])}</b>{interval}</div>")
    cards.append(f"<div>test images<b>{ensemble['test_images']}</b>fold not learned from</div>")
    reason = metrics.missing_metrics(ensemble["independent_groups"])
    return f'<div class="figures">{"".join(cards)}</div>' + (f"<p>{text(sentence(reason))}</p>" if reason else "")


def all_figures(ensemble: Figures) -> str:
    rows = [(NAMES[name], number(ensemble[name])) for name in NAMES]
    if told := ensemble.get("at_threshold"):
        rows += [(f"{key} at threshold {told['threshold']:.3f}", number(told[key])) for key in ("sensitivity", "specificity")]
    return "<h2>All figures</h2>" + table(["figure", "test images"], rows)


def by_class(ensemble: Figures) -> str:
    groups = ensemble["independent_groups"]
    rows = [(name, number(value), number(groups.get(name))) for name, value in ensemble["recall"].items()]
    return table(["class", "recall", "independent groups of test images"], rows)


def warning(params: Params, ensemble: Figures) -> str:
    drawn = "The images are synthetic: drawn by the pipeline itself. " if params.data.source == "data/phantom" else ""
    return (
        f'<p class="warning"><b>Not for clinical use.</b> {drawn}No diagnosis, treatment or triage may rest on it. It knows'
        f" nothing but the images of one collection; {ensemble['test_images']} test images say nothing of other scanners, other"
        " patients or other kinds of slices, and the intervals tell only what other images of the same collection might give.</p>"
    )


def comparison(ensemble: Figures, weights: dict[str, Weight]) -> str:
    columns = ("accuracy", "balanced_accuracy", "roc_auc", "log_loss")
    voters = {
        "the ensemble": ensemble,
        "uniform vote": ensemble["uniform_vote"],
        f"best member by out-of-bag log loss ({ensemble['best_member']['name']})": ensemble["best_member"],
        "mean member": ensemble["mean_member"],
    }
    rows = [(voter, *(number(figures[column]) for column in columns)) for voter, figures in voters.items()]
    out_of_bag = {name: read_out_of_bag(name) for name in weights}
    members = [
        (name, number(weights[name]["weight"]), *(number(out_of_bag[name][key]) for key in ("accuracy", "log_loss", "images")))
        for name in weights
    ]
    return (
        "<h2>The ensemble and its members</h2>"
        + table(["test images", *(NAMES[column] for column in columns)], rows)
        + table(["out-of-bag images", "weight", "accuracy", "log loss, nats", "images"], members)
    )


def picture(name: str, caption: str) -> str:
    content = Path(f"plots/{name}.png").read_bytes()
    is_wide = int.from_bytes(content[16:20], "big") > WIDEST  # of many classes: scrolls, since its letters are small already
    caption = text(caption)
    return (
        f'<figure{" class=wide" * is_wide}><img alt="{caption}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def explanation(explained: Explained) -> str:
    game = explained.get("pointing_game")
    if game is None:
        return "<p>Where tumors really are is known of synthetic slices only, so the heat maps are not checked here.</p>"
    return (
        f"<p>Pointing game: of {game['images']} synthetic test slices with a tumor, the hottest point is in the tumor"
        f" in {game['accuracy']:.0%}; {game['energy']:.0%} of the heat is, against {game['chance']:.0%} by chance.</p>"
    )


def data(metadata: Metadata, split: Split) -> str:
    of_test = set(split["test"])
    counts = Counter((image["class"], row in of_test) for row, image in enumerate(metadata["images"]))
    rows = [
        (name, number(counts[name, False] + counts[name, True]), number(counts[name, False]), number(counts[name, True]))
        for name in metadata["classes"]
    ]
    alone = len(set(split["groups"]))
    rejected = [(file["path"], file["reason"]) for file in metadata["rejected"]]
    return (
        "<h2>Data</h2>"
        + table(["class", "images", "to learn from", "to test on"], rows)
        + f"<p>{len(metadata['images'])} images in {alone} groups of near duplicates, which stay on one side of the split.</p>"
        + (table(["left out", "why"], rejected) if rejected else "<p>No file was left out.</p>")
    )


def new_images(told: Exported) -> str:
    share = told["novelty_warnings_of_test_images"]
    return (
        "<h2>New images</h2><pre>python -m predict PATH…</pre><p>It warns where an image is unlike those that the ensemble"
        f" learned from. Of the {share['images']} test images it would warn of {share['share']:.1%}, falsely.</p>"
    )


def parameters(params: Params) -> str:
    rows = []

    def add(values: dict, prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                add(value, f"{prefix}{key}.")
            else:
                rows.append((f"{prefix}{key}", "null" if value is None else str(value)))

    add(params.model_dump(exclude={"ensemble", "fan_out"}), "")
    return "<h2>Parameters</h2>" + table(["parameter", "value"], rows)


def reproduce(params: Params) -> str:
    own = "" if params.data.source == "data/phantom" else f"dvc pull {params.data.source}    # or put the images there again\n"
    return (
        f"<h2>How to repeat it</h2><p>In a clone of the commit that holds this run's <code>dvc.lock</code>:</p><pre>make repro\n"
        f"source .venv/bin/activate\n{text(own)}dvc repro\ndvc status          # every hash is as in dvc.lock</pre>"
        "<p>Machines of one kind end with the same bytes; another kind of processor rounds differently.</p>"
    )


def model_card(
    params: Params, metadata: Metadata, split: Split, ensemble: Figures, explained: Explained, exported: Exported
) -> str:
    """The model card in Markdown.

    References
    ----------
    M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
    """
    counts = Counter(image["class"] for image in metadata["images"])
    classes = listing([f"{counts[name]} {in_one_line(name)}" for name in metadata["classes"]])
    figures = [f"| {NAMES[name]} | {number(ensemble[name])} | {between(ensemble, name)} |" for name in NAMES]
    figures += [f"| recall of {in_one_line(name)} | {number(value)} | |" for name, value in ensemble["recall"].items()]
    reason = metrics.missing_metrics(ensemble["independent_groups"])
    seen = "."
    if game := explained.get("pointing_game"):
        seen = (
            f". In {game['accuracy']:.0%} of the {game['images']} synthetic"
            "\n  test slices with a tumor their hottest point is in it."
        )
    told = {
        "members": len(params.ensemble),
        "network": params.network.name,
        "start": "from scratch" if params.network.weights == "none" else "from given weights",
        "scheme": params.bootstrap.scheme,
        "weighed": params.weigh.scheme,
        "calibrated": ", calibrated on out-of-bag votes (temperature, class biases)" if params.weigh.calibrate else "",
        "size": params.ingest.image_size,
        "source": params.data.source,
        "whose": "synthetic slices, drawn by the pipeline" if params.data.source == "data/phantom" else "the user's images",
        "images": len(metadata["images"]),
        "classes": classes,
        "rejected": len(metadata["rejected"]),
        "training": len(split["training"]),
        "tested": len(split["test"]),
        "fold": params.split.fold,
        "folds": params.split.folds,
        "figures": "\n".join(figures),
        "missing": f"\n{sentence(reason)}\n" if reason else "",
        "mean_accuracy": ensemble["mean_member"]["accuracy"],
        "mean_auc": number(ensemble["mean_member"]["roc_auc"]),
        "warned": exported["novelty_warnings_of_test_images"]["share"],
        "seen": seen,
    }
    return MODEL_CARD.format(**told)


def between(ensemble: Figures, name: str) -> str:
    interval = ensemble["interval"].get(name)
    return "{:.3f} to {:.3f}".format(*interval) if interval else ""


def listing(names: list[str]) -> str:
    """The names with commas, the first ones of many."""
    more = len(names) - MOST_LISTED
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:MOST_LISTED])} and {more} more"


def sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def in_one_line(name: str) -> str:
    """A name as a cell of a Markdown table takes it."""
    return "".join(letter if letter.isprintable() else "?" for letter in name).replace("|", "\\|")


def table(header: list[str], rows: list[tuple]) -> str:
    """A table; cells are escaped, and numbers stand to the right."""

    def cell(value: "str | Number") -> str:
        return f'<td class="number">{value}</td>' if isinstance(value, Number) else f"<td>{text(value)}</td>"

    head = "".join(f"<th>{text(name)}</th>" for name in header)
    lines = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


class Number(str):
    """A number as it is shown."""


def number(value: float | None) -> Number:
    return Number(value if isinstance(value, int) else metrics.formatted(value))


def text(value: object) -> str:
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode())


if __name__ == "__main__":
    run_stage(main)
