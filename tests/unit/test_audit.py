"""The audit of a data set: each of its lists names the images that it must, and no others."""

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw, ImageOps

from brainmri.audit import __main__, measuring
from brainmri.audit.mislabeled import Votes, find_label_issues, label_issues
from brainmri.common.errors import UserError
from brainmri.images import cache
from brainmri.images.cache import RECENT_NS
from brainmri.images.phantoms import draw_phantom
from tests.support.checkout import ROOT


class Audit(NamedTuple):
    """What an audit wrote."""

    metrics: dict
    page: str
    output: str

    def paths(self, name: str) -> list[str]:
        """The paths in a CSV file, in its order."""
        return [row["path"] for row in self.table(name)]

    def table(self, name: str) -> list[dict[str, str]]:
        text = Path(f"plots/data_audit/{name}.csv").read_text()
        return list(csv.DictReader(text.splitlines()))

    def groups(self, name: str) -> list[set[str]]:
        """The paths in each group of a CSV file."""
        groups: dict[str, set[str]] = {}
        for row in self.table(name):
            groups.setdefault(row["group"], set()).add(row["path"])
        return list(groups.values())


@pytest.fixture
def audit(tmp_path, monkeypatch, capsys) -> Callable[..., Audit]:
    """Run the command in an empty project."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", "params.yaml")

    def run(*arguments: str) -> Audit:
        monkeypatch.setattr(sys, "argv", ["audit", *arguments])
        __main__.main()
        metrics = json.loads(Path("metrics/data_audit.json").read_text())
        return Audit(metrics, Path("plots/data_audit.html").read_text(), capsys.readouterr().out)

    return run


def phantom(number: int) -> Image.Image:
    """Return a synthetic slice that differs from those of other numbers."""
    return Image.fromarray(draw_phantom("no", number, 0).image)


def save(image: Image.Image, path: str, **options) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def save_slices(folder: str, count: int, start: int = 0) -> None:
    """Write slices of the classes "no" and "yes", in turn, none like another."""
    for number in range(start, start + count):
        save(phantom(number), f"{folder}/{('no', 'yes')[number % 2]}/{number}.png")


def shrunk(image: Image.Image) -> Image.Image:
    """Return a near duplicate."""
    return image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.BICUBIC)


def test_duplicates_are_listed_by_kind(audit):
    save_slices("raw", 6)
    save(phantom(0), "raw/no/copy.bmp")
    save(shrunk(phantom(1)), "raw/yes/near.jpg")
    save(shrunk(phantom(3)), "raw/yes/near 3.png")
    save(phantom(3), "raw/yes/third.png")
    result = audit("raw")
    assert result.groups("exact_duplicates") == [
        {"no/0.png", "no/copy.bmp"},
        {"yes/3.png", "yes/third.png"},
    ]
    assert result.groups("near_duplicates") == [
        {"yes/3.png", "yes/near 3.png", "yes/third.png"},
        {"yes/1.png", "yes/near.jpg"},
    ]
    assert result.metrics["exact_duplicates"]["images"] == 4
    assert result.metrics["near_duplicates"]["groups"] == 2
    assert result.metrics["groups_of_near_duplicates"] == 6
    assert result.paths("across_classes") == []
    assert "Near duplicates: 5 images in 2 groups" in result.output


def test_an_image_in_two_classes_is_listed(audit):
    save_slices("raw", 6)
    save(shrunk(phantom(0)), "raw/yes/again.png")
    save(phantom(1), "raw/no/same.png")
    result = audit("raw")
    assert result.groups("across_classes") == [
        {"no/0.png", "yes/again.png"},
        {"no/same.png", "yes/1.png"},
    ]
    assert result.metrics["across_classes"]["classes"] == {"no": 2, "yes": 2}


@pytest.mark.parametrize("arguments", [["raw"], ["raw/Training", "--test", "raw/Testing"]])
def test_twins_across_a_split_are_listed(audit, arguments):
    save_slices("raw/Training", 6)
    save_slices("raw/Testing", 4, start=6)
    save(shrunk(phantom(0)), "raw/Testing/no/again.png")
    save(shrunk(phantom(7)), "raw/Testing/yes/twin of a test image.png")
    result = audit(*arguments)
    assert result.paths("across_split") == ["Testing/no/again.png", "no/0.png"]
    assert result.metrics["split"] == {"training": 6, "test": 6}
    assert result.metrics["across_split"] == {"images": 1, "classes": {"no": 1, "yes": 0}}


def test_validation_images_are_compared_too(audit):
    for number, part in enumerate(("train", "val", "test")):
        save_slices(f"raw/{part}", 4, start=4 * number)
    save(phantom(1), "raw/val/yes/again.png")
    result = audit("raw")
    assert result.metrics["split"] == {"training": 4, "validation": 5, "test": 4}
    assert result.paths("across_split") == ["val/yes/again.png", "yes/1.png"]


def test_wrapped_class_folders_are_audited(audit):
    save_slices("raw/archive", 4)
    assert audit("raw").metrics["images"] == 4


def test_patients_are_counted_without_their_identifiers(audit):
    save_slices("raw", 6)
    rows = [
        ("no/0.png", "no", "SECRET-a", "training"),
        ("no/2.png", "no", "SECRET-b", "training"),
        ("no/4.png", "no", "SECRET-b", "test"),
        ("yes/1.png", "yes", "SECRET-a", "training"),
        ("yes/3.png", "yes", "SECRET-c", "test"),
        ("yes/5.png", "yes", "SECRET-d", "training"),
    ]
    lines = ["path,class,patient,split", *map(",".join, rows)]
    Path("labels.csv").write_text("\n".join(lines))
    result = audit("raw", "--labels", "labels.csv")
    assert result.metrics["patients"] == 4
    assert "Images of a patient: 1 to 2, median 1.5." in result.page
    assert result.groups("patients_across_split") == [{"no/2.png", "no/4.png"}]
    assert result.groups("patients_across_classes") == [{"no/0.png", "yes/1.png"}]
    written = [result.page, result.output, *(path.read_text() for path in Path().rglob("*.csv"))]
    assert not any(
        "SECRET" in text for text in written if not text.startswith("path,class,patient,s")
    )


def test_patients_come_from_paths(audit):
    for number, name in enumerate(["p1-a", "p1-b", "p2-a", "p3-a"]):
        save(phantom(number), f"raw/{('no', 'yes')[number % 2]}/{name}.png")
    result = audit("raw", "--patient", "(p[0-9]+)-")
    assert result.metrics["patients"] == 3
    assert result.groups("patients_across_classes") == [{"no/p1-a.png", "yes/p1-b.png"}]


def test_unknown_patients_are_no_list(audit):
    save_slices("raw", 4)
    result = audit("raw")
    assert "patients" not in result.metrics
    assert "Patients are unknown" in result.page


def test_odd_formats_are_listed(audit):
    save_slices("raw", 4)
    arrow = phantom(10).convert("RGB")
    ImageDraw.Draw(arrow).line((20, 20, 50, 50), fill=(255, 0, 0), width=4)
    save(arrow, "raw/no/arrow.png")
    save(phantom(11).convert("RGB"), "raw/no/gray as color.jpg")
    save(Image.eval(phantom(12), lambda level: 255 - level), "raw/yes/inverse.png")
    canvas = Image.new("L", (600, 600))
    canvas.paste(phantom(13).resize((200, 200)), (100, 100))
    save(canvas, "raw/yes/canvas.png")
    result = audit("raw")
    assert result.paths("colored") == ["no/arrow.png"]
    assert result.paths("bright_backgrounds") == ["yes/inverse.png"]
    assert result.paths("large_margins") == ["yes/canvas.png"]
    modes = {row["path"]: row["mode"] for row in result.table("images")}
    assert modes["no/gray as color.jpg"] == "RGB"
    assert modes["yes/canvas.png"] == "L"


def test_unusable_files_are_listed_with_reasons(audit):
    save_slices("raw", 4)
    Path("raw/no/empty.png").write_bytes(b"")
    Path("raw/yes/notes.txt").write_text("no image")
    save(Image.new("L", (50, 50)), "raw/yes/blank.png")
    result = audit("raw")
    reasons = {row["path"]: row["reason"] for row in result.table("unusable")}
    assert reasons.keys() == {"no/empty.png", "yes/notes.txt", "yes/blank.png"}
    assert reasons["no/empty.png"] == "empty file"
    assert result.metrics["rejected"] == 3
    assert result.metrics["images"] == 4


def test_an_image_unlike_all_others_is_first(audit):
    save_slices("raw", 30)
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)
    save(Image.fromarray(noise).resize((96, 96), Image.Resampling.NEAREST), "raw/no/noise.png")
    table = audit("raw").table("outliers")
    assert table[0]["path"] == "no/noise.png"
    errors = [float(row["error"]) for row in table]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[1]


def test_two_collections_share_near_duplicates(audit):
    save_slices("raw", 6)
    save_slices("external", 4, start=6)
    save(shrunk(phantom(2)), "external/anything/deep/again.png")
    Path("external/README").write_text("no image")
    result = audit("raw", "--against", "external")
    assert result.paths("against") == ["no/2.png", "external/anything/deep/again.png"]
    assert result.metrics["against"] == {"images": 1, "classes": {"no": 1, "yes": 0}}
    assert result.paths("near_duplicates") == []
    assert audit("raw").metrics.keys().isdisjoint({"against"})
    assert not Path("plots/data_audit/against.csv").exists()


def test_label_issues_are_confident_contradictions():
    # Class means: 0.7 for class 0, 0.6 for class 1
    of_class_0 = np.array([0.9, 0.9, 0.3, 0.7, 0.1, 0.2, 0.45, 0.85])
    probabilities = np.stack([of_class_0, 1 - of_class_0], axis=1)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert find_label_issues(labels, probabilities) == {7: 0, 2: 1}
    assert find_label_issues(labels[[0, 4]], probabilities[[0, 4]]) == {}


def test_thresholds_are_of_each_class():
    """Where a class is always improbable, a middling probability of it is confident."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.7, 0.3]])
    assert find_label_issues(np.array([0, 0, 0, 1, 1]), probabilities) == {2: 1}


def write_run(result: Audit, contradicted: str) -> None:
    """Write what a run with one member leaves that contradicts the label of one image."""
    images = []
    for row in result.table("images"):
        content = Path("raw", row["path"]).read_bytes()
        image = {"path": row["path"], "class": row["class"]}
        image |= {"sha256": hashlib.sha256(content).hexdigest(), "mode": "L", "levels": [0, 255]}
        image["perceptual_hashes"] = 4 * ["0" * 64]
        images.append({**image, "width": 9, "height": 9})
    Path("data/rad").mkdir(parents=True)
    metadata = json.dumps({"classes": ["no", "yes"], "images": images, "rejected": []}).encode()
    Path("data/rad/metadata.json").write_bytes(metadata)
    entry = {"path": "data/rad/metadata.json", "md5": hashlib.md5(metadata).hexdigest()}
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"weigh": {"deps": [entry]}}}))
    rows = [*range(len(images))]
    split = {"test": [], "training": rows, "excluded": [], "groups": rows}
    Path("data/split.json").write_text(json.dumps(split))
    lines = ["row,no,yes"]
    for row, image in enumerate(images[1:], start=1):
        is_yes = (image["class"] == "yes") != (image["path"] == contradicted)
        lines.append(f"{row},{0.1 if is_yes else 0.9},{0.9 if is_yes else 0.1}")
    for number in range(5):
        folder = Path(f"models/members/member-{number:02d}")
        folder.mkdir(parents=True)
        (folder / "out_of_bag.csv").write_text("\n".join(lines) + "\n")
        sample = {"in_bag": [0], "out_of_bag": [*range(1, len(images))]}
        Path("data/bootstrap").mkdir(exist_ok=True)
        Path(f"data/bootstrap/{folder.name}.json").write_text(json.dumps(sample))


@pytest.mark.parametrize("scheme", ["log_loss", "greedy", "stacking"])
def test_votes_of_a_run_on_these_images_are_used(audit, scheme):
    params = Path("params.yaml").read_text()
    Path("params.yaml").write_text(params.replace("scheme: log_loss", f"scheme: {scheme}"))
    save_slices("raw", 12)
    result = audit("raw")
    assert result.metrics["mislabeled"] is None
    assert "there is no run in this folder" in result.page
    write_run(result, "yes/5.png")
    result = audit("raw")
    assert result.paths("mislabeled") == ["yes/5.png"]
    assert result.table("mislabeled")[0]["suggested"] == "no"


def test_labels_that_votes_contradict_without_confidence_come_last():
    votes = [[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]]
    labels = np.array([0, 0, 0, 1, 1, 1])
    rows = [10, 11, 12, 13, 14, 15]
    issues = label_issues(Votes(rows, ["no", "yes"], labels, np.array(votes)))
    assert [(issue.row, issue.suggested, issue.is_confident) for issue in issues] == [
        (15, "no", True),
        (12, "yes", False),
    ]


@pytest.mark.parametrize("change", ["image", "class", "metadata", "lock", "member"])
def test_votes_on_other_images_are_not_used(audit, change):
    save_slices("raw", 12)
    write_run(audit("raw"), "yes/5.png")
    if change == "image":
        save(phantom(99), "raw/no/0.png")
    elif change == "class":
        shutil.move("raw/no/0.png", "raw/yes/0.png")
    elif change == "metadata":  # of the same images, but written after the members
        path = Path("data/rad/metadata.json")
        path.write_text(path.read_text() + "\n")
    elif change == "lock":
        Path("dvc.lock").unlink()
    else:
        Path("models/members/member-03/out_of_bag.csv").unlink()
    result = audit("raw")
    assert result.metrics["mislabeled"] is None
    assert not Path("plots/data_audit/mislabeled.csv").exists()


def test_names_are_escaped(audit):
    save_slices("raw", 4)
    name = "<img src=x onerror=alert(1)>.png"
    save(phantom(1), f"raw/yes/{name}")
    (Path("raw/no") / "\udcff.png").write_bytes(b"x")
    result = audit("raw")
    assert name in result.paths("exact_duplicates")[1]
    assert "<img src=x" not in result.page
    assert "&lt;img src=x" in result.page
    assert "\\udcff" in result.page


def test_the_page_is_bounded_and_needs_no_other_file(audit):
    save_slices("raw", 2)
    rng = np.random.default_rng(0)
    for number in range(70):
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        save(noise.resize((40, 40)), f"raw/no/{number:02d}.png")
    result = audit("raw")
    section = result.page.partition('<h2 id="colored">')[2].partition("<h2")[0]
    assert section.count("<img ") == 60
    assert "and 10 more in the CSV" in section
    assert len(result.paths("colored")) == 70
    assert not re.search(r'(src|href)="(?!data:|#)', result.page)


def test_equal_images_give_equal_bytes_without_reading_them_again(audit, monkeypatch):
    save_slices("raw", 25)
    save(phantom(0), "raw/yes/again.png")
    time.sleep(1.1 * RECENT_NS / 1e9)  # a file changed just now would be read again

    def outputs() -> dict[str, bytes]:
        files = [*Path("plots").rglob("*"), *Path("metrics").rglob("*")]
        return {str(path): path.read_bytes() for path in files if path.is_file()}

    audit("raw")
    first = outputs()
    monkeypatch.setattr(measuring, "measure", lambda *_: pytest.fail("read again"))
    audit("raw")
    assert outputs() == first
    assert not any(str(Path.cwd()).encode() in content for content in first.values())


def test_what_ingest_will_refuse_is_said(audit):
    """Class folders in an only folder, and a class without a usable image."""
    save_slices("raw/outer", 4)
    printed = audit("raw").output
    assert "the class folders are in 'raw/outer'; to train on them, run" in printed
    assert "-S data.source=raw/outer" in printed
    Path("raw/outer/none").mkdir()
    Path("raw/outer/none/broken.png").write_bytes(b"x")
    assert "No usable image of class 'none': `ingest` will refuse this" in audit("raw").output


def test_the_source_of_params_is_the_default(audit):
    save_slices("data/phantom", 4)
    assert audit().metrics["images"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "'missing' is not a folder"),
        (["raw/no"], "has 0 class folder"),
        (["raw", "--against", "missing"], "--against: 'missing' is not a folder"),
        (["raw", "--against", ""], "--against: '' is not a folder"),
        (["raw", "--patient", "("], "patient: "),
        (["raw", "--patient", "(x)"], "no patient in 4 of 4 paths"),
        (["raw", "--labels", "missing.csv"], "'missing.csv' can't be read"),
        (["raw", "--test", "raw/no"], "neither in the other"),
        (
            ["raw", "--against", "texts"],
            "texts: no usable image ('texts/a.txt': not an image of a known format;",
        ),
    ],
)
def test_mistakes_are_one_line(audit, arguments, message):
    save_slices("raw", 4)
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("no image")
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        audit(*arguments)
    assert "\n" not in str(raised.value)
    assert not Path("plots/data_audit.html").exists()


def test_the_command_ends_with_an_error(audit, tmp_path):
    command = [sys.executable, "-m", "brainmri.audit", "missing"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: data.source: 'missing' is not a folder")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("width", "height"), [(100, 300), (300, 100), (61, 87), (90, 90)])
def test_padding_is_removed(width, height):
    inner = Image.new("L", (width, height), 200)
    for size in range(40, 72):
        padded = np.array(ImageOps.pad(inner, (size, size)))
        assert np.all(np.array(measuring.without_padding(padded, width, height)) == 200)


def test_measurements_depend_on_the_decoders(tmp_path, monkeypatch):
    path = tmp_path / "audit.json"
    measuring.save_cache([], 64, {}, path)
    before = path.read_bytes()
    monkeypatch.setattr(cache, "_version", lambda package: "0")
    measuring.save_cache([], 64, {}, path)
    assert path.read_bytes() != before


def test_page_without_thumbnails(audit):
    """The lists and their tables are the same."""
    for path in ("source/a/1.png", "source/b/1.png", "source/b/2.png"):
        save(phantom(3), path)
    with_images = audit("source")
    without = audit("source", "--no-thumbnails")
    assert "data:image" in with_images.page
    assert "data:image" not in without.page
    assert without.page.count(">no thumbnail<") == with_images.page.count("data:image")
    assert without.metrics == with_images.metrics
