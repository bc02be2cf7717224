"""Whatever lies in a source: what can be used is in the store, what can not is told in one line each, and nothing is lost."""

import io
import json

import h5py
import numpy as np
import pytest
from conftest import Project
from PIL import Image


def picture(seed: int, form: str = "PNG", mode: str = "L", **options) -> bytes:
    """A file of a picture that differs from those of other seeds."""
    noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(content, form, **options)
    return content.getvalue()


def animation() -> bytes:
    content = io.BytesIO()
    frames = [Image.new("L", (40, 40), level) for level in (0, 100, 200)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    return content.getvalue()


def wide() -> bytes:
    content = io.BytesIO()
    Image.new("1", (20_001, 40)).save(content, "PNG")
    return content.getvalue()


def dot() -> bytes:
    content = io.BytesIO()
    Image.new("L", (1, 1)).save(content, "PNG")
    return content.getvalue()


def bomb() -> bytes:
    content = io.BytesIO()
    Image.new("1", (19_000, 19_000)).save(content, "PNG")
    return content.getvalue()


USABLE = {
    "grey.png": picture(1),
    "colour.jpg": picture(2, "JPEG", "RGB"),
    "print.jpg": picture(3, "JPEG", "CMYK"),
    "palette.png": picture(4, "PNG", "P", transparency=0),
    "deep.png": picture(5, "PNG", "I;16"),
    "turned.jpg": picture(6, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "x" * 251 + ".png": picture(7),
    "deeper/and/deeper/scan.png": picture(8),
}
UNUSABLE = {
    "empty.png": (b"", "empty file"),
    "cut.jpg": (picture(9, "JPEG")[:500], "broken image"),
    "cut.png": (picture(9)[:500], "broken image"),
    "page.jpg": (b"<!DOCTYPE html><p>404", "not an image of a known format"),
    "other format.png": (b"P5 40 40 255 " + bytes(1600), "not an image of a known format"),
    "dot.png": (dot(), "1×1 pixels are too few"),
    "bomb.png": (bomb(), "more than 100,000,000 pixels"),
    "wide.png": (wide(), "a side may have 20,000"),
    "moving.gif": (animation(), "3 frames"),
}


@pytest.fixture
def project(fresh) -> Project:
    """A project whose source holds four pictures in each of two classes; nothing has run."""
    for start, name in enumerate(("no", "yes")):
        put(fresh, {f"{name}/{index}.png": picture(100 + 10 * start + index) for index in range(4)})
    fresh.edit(data__source="data/raw", ingest__size=32)
    return fresh


def put(project: Project, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = project.path / "data/raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def ingest(project: Project, ok: bool = True) -> tuple[str, set[str], dict[str, str]]:
    """What the stage prints, the paths that it stored, and why it left out others."""
    output = project.run("python", "-m", "stages.ingest", ok=ok)
    assert "Traceback" not in output
    if not ok:
        return output, set(), {}
    metadata = json.loads(project.read("data/rad/metadata.json"))
    with h5py.File(project.path / "data/rad/image_data.h5") as file:
        assert len(file["images"]) == len(file["labels"]) == len(metadata["images"])
        assert [metadata["classes"][label] for label in file["labels"]] == [one["class"] for one in metadata["images"]]
    reasons = {one["path"]: one["reason"] for one in metadata["rejected"]}
    assert output.count("left out: ") == len(reasons)
    return output, {one["path"] for one in metadata["images"]}, reasons


def test_usable_files_are_stored_and_others_told_whatever_they_are(project):
    put(project, {f"yes/{name}": content for name, content in USABLE.items()})
    put(project, {f"no/{name}": content for name, (content, _) in UNUSABLE.items()})
    put(project, {"no/.hidden.png": picture(9), "no/Thumbs.db": b"x", ".cache/a.png": picture(9), "notes.txt": b"x"})
    _, stored, reasons = ingest(project)
    plain = {f"{name}/{index}.png" for name in ("no", "yes") for index in range(4)}
    assert stored == plain | {f"yes/{name}" for name in USABLE}
    assert set(reasons) == {"notes.txt", *(f"no/{name}" for name in UNUSABLE)}
    for name, (_, reason) in UNUSABLE.items():
        assert reason in reasons[f"no/{name}"]


def test_links_are_followed_only_to_files_of_the_source(project):
    source = project.path / "data/raw"
    (project.path.parent / "elsewhere").mkdir()
    (project.path.parent / "elsewhere/scan.png").write_bytes(picture(9))
    for name, target in {
        "inside.png": source / "yes/0.png",
        "outside.png": project.path.parent / "elsewhere/scan.png",
        "folder": project.path.parent / "elsewhere",
        "loop.png": "loop.png",
        "gone.png": "nowhere.png",
        "again": source / "no",
    }.items():
        (source / "yes" / name).symlink_to(target)
    _, stored, reasons = ingest(project)
    assert "yes/inside.png" in stored
    assert reasons == {
        "yes/again": "a symbolic link to a folder",
        "yes/folder": "a symbolic link out of data.source",
        "yes/gone.png": "a symbolic link to nowhere",
        "yes/loop.png": "a symbolic link to nowhere",
        "yes/outside.png": "a symbolic link out of data.source",
    }


def test_a_picture_in_two_classes_is_told_and_not_learned_and_one_twice_in_a_class_is(project):
    put(project, {"no/both.png": picture(9), "no/twice.png": picture(8), "no/twice again.png": picture(8)})
    put(project, {"yes/both, compressed anew.png": picture(9, compress_level=1)})
    _, stored, reasons = ingest(project)
    assert reasons == {
        "no/both.png": "the same picture is in another class: 'yes/both, compressed anew.png'",
        "yes/both, compressed anew.png": "the same picture is in another class: 'no/both.png'",
    }
    assert {"no/twice.png", "no/twice again.png"} <= stored
    assert len(stored) == 10
    metadata = json.loads(project.read("data/rad/metadata.json"))["images"]
    with h5py.File(project.path / "data/rad/image_data.h5") as file:
        pixels = {one["path"]: file["images"][row].tobytes() for row, one in enumerate(metadata)}
    assert pixels["no/twice.png"] == pixels["no/twice again.png"]
    assert len(set(pixels.values())) == 9


def test_strict_makes_any_file_that_can_not_be_used_an_error(project):
    project.edit(ingest__strict=True)
    ingest(project)
    put(project, {"no/broken.png": b"x"})
    output, _, _ = ingest(project, ok=False)
    assert "left out: 'no/broken.png': not an image of a known format" in output
    assert "error: data/raw: 1 files can't be used, and ingest.strict allows none" in output
    assert not (project.path / "data/rad/image_data.h5").exists()


def test_a_class_folder_that_is_a_link_elsewhere_is_named(project):
    (project.path / "data/raw/yes").rename(project.path.parent / "yes")
    (project.path / "data/raw/yes").symlink_to(project.path.parent / "yes")
    output, _, _ = ingest(project, ok=False)
    assert "'data/raw' has 1 class folder(s); expected two or more, one for each class ('yes': a symbolic link out of" in output
