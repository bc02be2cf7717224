"""The stage `ingest` in the process of the test: rows have pixels and metadata of their files."""

import hashlib
import io
import json
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yaml
from PIL import Image

from brainmri.common.errors import UserError
from brainmri.images import ingestion
from brainmri.images.cache import RECENT_NS
from brainmri.images.decoding import decode
from brainmri.images.sources import SourceFile
from stages import ingest
from tests.support.checkout import ROOT
from tests.support.images import write_raw_files
from tests.support.project import Project


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    """An empty folder, the current one, with params.yaml of a source that does not exist yet."""
    monkeypatch.chdir(tmp_path)
    set_ingest()
    return Project(tmp_path)


def set_ingest(**values) -> None:
    """Write params.yaml with other values of `ingest`."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"]["source"] = "data/raw"
    params["ingest"] |= {"image_size": 32, "crop": False, **values}
    write_params(params)


def set_data(**values) -> None:
    """Change values of `data` in params.yaml."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["data"] |= values
    params["further_input"] = values.get("labels") or values.get("test") or "data/README.md"
    write_params(params)


def write_params(params: dict) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def random_levels(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def encode(levels: np.ndarray, **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "PNG", **options)
    return content.getvalue()


def resize(levels: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC))


def read_store() -> tuple[np.ndarray, list[int], dict]:
    """Return images, labels and metadata."""
    with h5py.File("data/rad/image_data.h5") as file:
        images, labels = file["images"][:], file["labels"][:].tolist()
    return images, labels, json.loads(Path("data/rad/metadata.json").read_text())


def store_files() -> dict[str, bytes]:
    files = [path for path in Path("data/rad").rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_rows_fit_their_files(project, capsys, compression):
    set_ingest(compression=compression)
    paths = [
        "a/2.png",
        "a/y/1.png",
        "a/z.png",
        "b/1.png",
        "b/x.png",
        "c/0.png",
        "c/1.png",
        "c/10.png",
        "c/2.png",
        "c/é.png",
    ]
    levels = {path: random_levels(seed) for seed, path in enumerate(paths)}
    levels["b/1.png"] = random_levels(3, 16, 32)
    levels["c/0.png"] = random_levels(5, 64, 32)
    contents = {path: encode(levels[path]) for path in paths}
    write_raw_files(project, dict(reversed(contents.items())))
    in_both = random_levels(99)
    unusable = {
        "c/9.png": b"",
        "a/1.png": b"x",
        "notes.txt": b"x",
        "b/both.png": encode(in_both),
        "c/both.png": encode(in_both, compress_level=1),
    }
    write_raw_files(project, unusable)

    ingest.main()

    images, labels, metadata = read_store()
    assert metadata["classes"] == ["a", "b", "c"]
    assert labels == [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]
    expected = dict(levels)
    expected["b/1.png"] = np.pad(levels["b/1.png"], ((8, 8), (0, 0)))
    expected["c/0.png"] = np.pad(resize(levels["c/0.png"], 16, 32), ((0, 0), (8, 8)))
    for row, path in enumerate(paths):
        np.testing.assert_array_equal(images[row, :, :, 0], expected[path])
        decoded = decode(f"data/raw/{path}", 32)
        assert metadata["images"][row] == {
            "path": path,
            "class": path[0],
            "sha256": hashlib.sha256(contents[path]).hexdigest(),
            "perceptual_hashes": [*decoded.perceptual_hashes],
            "width": levels[path].shape[1],
            "height": levels[path].shape[0],
            "mode": "L",
            "levels": [0, 255],
        }
    rejected = ["notes.txt", "a/1.png", "b/both.png", "c/9.png", "c/both.png"]
    assert [file["path"] for file in metadata["rejected"]] == rejected
    metrics = json.loads(Path("metrics/ingest.json").read_text())
    assert metrics == {"images": 10, "rejected": 5, "classes": {"a": 3, "b": 2, "c": 5}}
    assert list(metrics["classes"]) == ["a", "b", "c"]
    assert "10 images of 3 classes, 5 files skipped" in capsys.readouterr().out


@pytest.mark.parametrize("crop", [True, False])
def test_crop_decides_on_heads_or_whole_images(project, crop):
    set_ingest(crop=crop)
    for seed, path in enumerate(("no/a.png", "yes/b.png")):
        levels = np.zeros((64, 64), np.uint8)
        levels[10:42, 20:52] = np.random.default_rng(seed).integers(60, 256, (32, 32))
        write_raw_files(project, {path: encode(levels)})
    ingest.main()
    expected = levels[10:42, 20:52] if crop else resize(levels, 32, 32)
    np.testing.assert_array_equal(read_store()[0][1, :, :, 0], expected)


def test_second_run_decodes_new_files_only(project, monkeypatch):
    paths = [f"{name}/{index}.png" for name in ("no", "yes") for index in range(20)]
    levels = {path: random_levels(seed) for seed, path in enumerate(paths)}
    contents = {path: encode(levels[path]) for path in paths}
    new = {"no/7.png": contents.pop("no/7.png")}
    write_raw_files(project, contents)
    time.sleep(1.1 * RECENT_NS / 1e9)  # files changed just now are decoded again
    ingest.main()
    write_raw_files(project, new)
    requested = []

    def decode_all(files, *_):
        for path in files:
            requested.append(path)
            yield path, decode(path, 32)

    monkeypatch.setattr(ingestion, "decode_all", decode_all)
    ingest.main()
    assert requested == [Path("data/raw/no/7.png")]
    images, labels, metadata = read_store()
    assert [image["path"] for image in metadata["images"]] == sorted(paths)
    assert labels == [0] * 20 + [1] * 20
    np.testing.assert_array_equal(images[..., 0], [levels[path] for path in sorted(paths)])


def test_unusable_source_leaves_the_store(project):
    first, second = encode(random_levels(1)), encode(random_levels(2))
    write_raw_files(project, {"no/a.png": first, "yes/a.png": second, "yes/b.png": b"x"})
    ingest.main()
    before = store_files()
    set_ingest(strict=True)
    with pytest.raises(UserError, match="1 files can't be used"):
        ingest.main()
    set_ingest()
    write_raw_files(project, {"yes/a.png": b"x"})
    with pytest.raises(UserError, match="no usable image of class 'yes'"):
        ingest.main()
    write_raw_files(project, {"yes/a.png": first})
    with pytest.raises(UserError, match="no usable image of class 'no', 'yes'"):
        ingest.main()
    assert store_files() == before


def test_table_with_patients_and_a_split(project, capsys):
    paths = ["P-7/1.png", "P-7/2.png", "P-8/1.png", "P-8/2.png", "9.png"]
    write_raw_files(project, {path: encode(random_levels(seed)) for seed, path in enumerate(paths)})
    write_raw_files(project, {"8.png": encode(random_levels(8)), "1.png": b""})
    Path("table.csv").write_text(
        "path,class,patient,split\n"
        "P-7/1.png,yes,jane-doe-1,test\n"
        "P-7/2.png,no,jane-doe-1,test\n"
        "P-8/1.png,yes,jane-doe-2,training\n"
        "P-8/2.png,no,jane-doe-3,training\n"
        "9.png,no,jane-doe-2,training\n"
        "1.png,no,jane-doe-4,training\n"
    )
    set_data(labels="table.csv")
    ingest.main()

    images, labels, metadata = read_store()
    expected = [  # path, class, patient, split
        ("9.png", "no", 0, "training"),
        ("P-7/2.png", "no", 1, "test"),
        ("P-8/2.png", "no", 2, "training"),
        ("P-7/1.png", "yes", 1, "test"),
        ("P-8/1.png", "yes", 0, "training"),
    ]
    keys = ("path", "class", "patient", "split")
    assert [tuple(image[key] for key in keys) for image in metadata["images"]] == expected
    assert labels == [0, 0, 0, 1, 1]
    for row, (path, *_) in enumerate(expected):
        np.testing.assert_array_equal(images[row, :, :, 0], random_levels(paths.index(path)))
    assert metadata["rejected"] == [
        {"path": "8.png", "reason": "not in data.labels"},
        {"path": "1.png", "reason": "empty file"},
    ]
    metrics = json.loads(Path("metrics/ingest.json").read_text())
    assert metrics == {"images": 5, "rejected": 2, "classes": {"no": 3, "yes": 2}, "patients": 3}
    printed = capsys.readouterr().out
    assert "3 patients; 2 of them have images of several classes" in printed
    check_no_identifier("jane", printed)


def check_no_identifier(text: str, printed: str) -> None:
    """Check that no file but the table, and no name of a file, holds a text."""
    assert text not in printed
    for path in Path().rglob("*"):
        assert text not in str(path)
        if path.is_file() and path.name != "table.csv":
            assert text.encode() not in path.read_bytes(), path


def test_given_test_folder(project):
    levels = {path: random_levels(seed) for seed, path in enumerate(("no/1.png", "yes/1.png"))}
    write_raw_files(project, {path: encode(pixels) for path, pixels in levels.items()})
    other = random_levels(7)
    write_raw_files(project, {"no/2.png": encode(random_levels(8))})
    Path("held/no").mkdir(parents=True)
    Path("held/no/1.png").write_bytes(encode(other))
    Path("held/yes").mkdir()
    Path("held/yes/1.png").write_bytes(encode(levels["no/1.png"]))
    Path("held/yes/2.png").write_bytes(b"")
    set_data(test="held", patient="/([0-9])")
    ingest.main()
    images, labels, metadata = read_store()
    rows = [(image["path"], image["split"], image["patient"]) for image in metadata["images"]]
    assert rows == [
        ("no/2.png", "training", 0),
        ("yes/1.png", "training", 1),
        ("held/no/1.png", "test", 1),
    ]
    assert labels == [0, 1, 0]
    np.testing.assert_array_equal(images[2, :, :, 0], other)
    conflict = "the same image is in another class"
    assert metadata["rejected"] == [
        {"path": "no/1.png", "reason": f"{conflict}: 'held/yes/1.png'"},
        {"path": "held/yes/1.png", "reason": f"{conflict}: 'no/1.png'"},
        {"path": "held/yes/2.png", "reason": "empty file"},
    ]


def test_mistakes_about_patients_leave_the_store(project):
    for seed, name in enumerate(("no", "yes")):
        write_raw_files(project, {f"{name}/1.png": encode(random_levels(seed))})
    ingest.main()
    before = store_files()
    for pattern, message in (("(P)", "finds no patient in 2 of 2"), ("(/)", "the same patient")):
        set_data(patient=pattern)
        with pytest.raises(UserError, match=message):
            ingest.main()
    assert store_files() == before


def test_strict_mode_accepts_a_flawless_source():
    ingestion.check_source(Path("raw"), Counter(a=1), [], strict=True)


def test_conflicting_images_name_the_first_other():
    pixels = {
        "a/1": "p",
        "a/2": "q",
        "a/3": "p",
        "b/1": "r",
        "b/2": "p",
        "b/3": "p",
        "c/1": "p",
        "c/2": "r",
        "c/3": "s",
        "c/4": "s",
    }
    files = [SourceFile(path, Path("raw"), path, path[0]) for path in [*pixels, "c/unread"]]
    records = {path: SimpleNamespace(pixels=name) for path, name in pixels.items()}
    others = {
        "a/1": "b/2",
        "a/3": "b/2",
        "b/1": "c/2",
        "b/2": "a/1",
        "b/3": "a/1",
        "c/1": "a/1",
        "c/2": "b/1",
    }
    assert ingestion.conflicting_classes(files, records) == {
        path: f"the same image is in another class: {other!r}" for path, other in others.items()
    }
