"""Whatever lies in a source: what can be used is in the store, what can not is told in one line each, and nothing is lost."""

import io
import json
import os
import shlex
import shutil
import subprocess

import h5py
import pytest
from conftest import Output, Project, picture, put
from PIL import Image

# Root may read every file, but for a process that gave that right away.
RIGHTS = "-dac_override,-dac_read_search"
WITHOUT_ROOTS_RIGHTS = ("setpriv", "--bounding-set", RIGHTS, "--inh-caps", RIGHTS) if os.geteuid() == 0 else ()
needs_permissions = pytest.mark.skipif(
    WITHOUT_ROOTS_RIGHTS and subprocess.run(["sh", "-c", f"{shlex.join(WITHOUT_ROOTS_RIGHTS)} true"]).returncode != 0,
    reason="root can't give up its rights here, and may read every file",
)


def animation() -> bytes:
    content = io.BytesIO()
    frames = [Image.new("L", (40, 40), level) for level in (0, 100, 200)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    return content.getvalue()


def blank() -> bytes:
    content = io.BytesIO()
    Image.new("L", (40, 40), 90).save(content, "PNG")
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


def ingest(project: Project, ok: bool = True, command: tuple = ("python", "-m", "stages.ingest")) -> tuple[Output, set, dict]:
    """What the stage prints, the paths that it stored, and why it left out others."""
    output = project.run(*command, ok=ok)
    assert "Traceback" not in output
    if not ok:
        return output, set(), {}
    metadata = json.loads(project.read("data/rad/metadata.json"))
    with h5py.File(project.path / "data/rad/image_data.h5") as file:
        assert len(file["images"]) == len(file["labels"]) == len(metadata["images"])
        assert [metadata["classes"][label] for label in file["labels"]] == [one["class"] for one in metadata["images"]]
    reasons = {one["path"]: one["reason"] for one in metadata["rejected"]}
    assert sum(line.startswith("left out: ") for line in output.stdout.splitlines()) == len(reasons)
    return output, {one["path"] for one in metadata["images"]}, reasons


def stored_bytes(project: Project) -> dict[str, bytes]:
    folder = project.path / "data/rad"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_a_fresh_run(project: Project) -> dict[str, bytes]:
    """What is stored when nothing is known of earlier runs."""
    shutil.rmtree(project.path / ".dvc/tmp/ingest")
    shutil.rmtree(project.path / "data/rad")
    ingest(project)
    return stored_bytes(project)


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


def test_metadata_hold_levels_and_blanks_are_rejected(project):
    put(project, {"yes/deep.png": picture(5, "PNG", "I;16"), "no/blank.png": blank()})
    _, _, reasons = ingest(project)
    images = {image["path"]: image for image in json.loads(project.read("data/rad/metadata.json"))["images"]}
    assert images["no/0.png"]["levels"] == [0, 255]
    black, white = images["yes/deep.png"]["levels"]
    assert 0 <= black < white <= 255  # all that the conversion to 16 bits leaves
    assert reasons == {"no/blank.png": "1 distinct grey level(s), as of a mask or a blank; 8 or more are expected"}
    before = project.read("data/rad/metadata.json")
    ingest(project)  # from what is known of the files
    assert project.read("data/rad/metadata.json") == before


def test_links_are_followed_only_to_files_of_the_source(project):
    source = project.path / "data/raw"
    (project.path.parent / "elsewhere").mkdir()
    (project.path.parent / "elsewhere/scan.png").write_bytes(picture(9))
    for name, target in {
        "inside.png": source / "yes/0.png",
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
    }


def test_a_link_out_of_the_source_is_an_error_since_dvc_takes_it_for_the_file(project):
    """Were it left out, the copy that replaces it would be too: DVC sees the same content, and skips the stage."""
    (project.path.parent / "scan.png").write_bytes(picture(9))
    link = project.path / "data/raw/yes/outside.png"
    link.symlink_to(project.path.parent / "scan.png")
    output, _, _ = ingest(project, ok=False, command=("dvc", "repro", "ingest"))
    assert "error: 'data/raw/yes/outside.png' is a symbolic link out of data.source" in output.stderr
    link.unlink()
    link.write_bytes(picture(9))
    _, stored, _ = ingest(project, command=("dvc", "repro", "ingest"))
    assert "yes/outside.png" in stored


@needs_permissions
def test_what_nobody_can_read_is_left_out_and_told_by_dvc_too(project):
    source = project.path / "data/raw"
    (source / "yes/gone.png").symlink_to("nowhere.png")
    (source / "yes/loop.png").symlink_to("loop.png")
    (source / "yes/closed.png").write_bytes(picture(9))
    (source / "yes/closed.png").chmod(0)
    os.mkfifo(source / "yes/pipe.png")
    with open(os.fsencode(source) + b"/yes/latin-\xe9.png", "wb") as file:
        file.write(picture(9))
    (source / "yes/two\nlines.png").write_bytes(picture(8))
    output, stored, reasons = ingest(project, command=(*WITHOUT_ROOTS_RIGHTS, "dvc", "repro", "ingest"))
    assert "yes/two\nlines.png" in stored
    assert reasons == {
        "yes/closed.png": "Permission denied",
        "yes/gone.png": "a symbolic link to nowhere",
        "yes/latin-\udce9.png": "its name is not UTF-8; rename it",
        "yes/loop.png": "a symbolic link to nowhere",
        "yes/pipe.png": "not a regular file",
    }
    assert output.stderr.count(" is left out: ") == 5  # in DVC's words
    (source / "yes/closed.png").chmod(0o644)
    _, stored, reasons = ingest(project, command=("dvc", "repro", "ingest"))
    assert "yes/closed.png" in stored
    assert len(reasons) == 4


@needs_permissions
def test_a_folder_that_can_not_be_listed_is_an_error(project):
    (project.path / "data/raw/yes/closed").mkdir(0)
    output, _, _ = ingest(project, ok=False, command=(*WITHOUT_ROOTS_RIGHTS, "python", "-m", "stages.ingest"))
    assert output.stderr == "error: 'data/raw/yes/closed' can't be listed (Permission denied); mend it or remove it\n"


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
    before = stored_bytes(project)
    put(project, {"no/broken.png": b"x"})
    output, _, _ = ingest(project, ok=False)
    assert "left out: 'no/broken.png': not an image of a known format" in output.stdout
    assert "error: data/raw: 1 files can't be used, and ingest.strict allows none" in output.stderr
    assert stored_bytes(project) == before


def test_a_class_folder_that_is_a_link_elsewhere_is_named(project):
    (project.path / "data/raw/yes").rename(project.path.parent / "yes")
    (project.path / "data/raw/yes").symlink_to(project.path.parent / "yes")
    output, _, _ = ingest(project, ok=False)
    reason = "('yes': a symbolic link out of"
    assert f"'data/raw' has 1 class folder(s); expected two or more, one for each class {reason}" in output.stderr


def settle(project: Project) -> None:
    """Make the files old enough to be told by their time of change."""
    for path in (project.path / "data/raw").rglob("*.png"):
        os.utime(path, (1, 1))


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_store_that_has_changed_with_its_source_is_that_of_a_fresh_run(project, compression):
    project.edit(ingest__compression=compression)
    raw = project.path / "data/raw"
    put(
        project,
        {
            f"{name}/{index:03}.png": picture(1000 * start + index)
            for start, name in ((1, "no"), (2, "yes"))
            for index in range(60)
        },
    )
    settle(project)
    ingest(project)
    before = stored_bytes(project)
    put(project, {"no/0305.png": picture(7), "yes/0601.png": picture(8), "yes/broken.png": b"x"})
    (raw / "no/010.png").unlink()
    (raw / "no/020.png").rename(raw / "yes/a.png")
    (raw / "yes/040.png").write_bytes(picture(9))
    put(project, {"no/same as yes 30.png": picture(2030)})
    _, stored, reasons = ingest(project)
    assert {"no/0305.png", "yes/0601.png", "yes/a.png", "yes/040.png"} <= stored
    assert {*reasons} == {"yes/broken.png", "no/same as yes 30.png", "yes/030.png"}
    grown = stored_bytes(project)
    kept = [name for name in grown if name.startswith("shards/") and name in before]
    assert len(kept) >= 5
    assert grown == in_a_fresh_run(project)


def test_files_that_are_known_are_not_read_again_and_damage_to_what_is_known_is_noticed(project):
    settle(project)
    ingest(project)
    before = stored_bytes(project)
    for path in (project.path / "data/raw/no").iterdir():  # other content, of which size and time of change tell nothing
        path.write_bytes(b"?" * path.stat().st_size)
    settle(project)
    ingest(project)
    assert stored_bytes(project) == before
    for path in (project.path / ".dvc/tmp/ingest").glob("*.h5"):
        path.write_bytes(b"damaged")
    output, _, _ = ingest(project, ok=False)
    assert "no usable image in class folder 'no'" in output.stderr
    for index in range(4):
        put(project, {f"no/{index}.png": picture(100 + index)})
    settle(project)
    for damaged in (b"{", b"[]", b'{"fingerprint": 1}'):
        (project.path / ".dvc/tmp/ingest/index.json").write_bytes(damaged)
        ingest(project)
        assert stored_bytes(project) == before


def test_an_empty_class_and_an_empty_source_are_refused_and_one_image_is_a_class(project):
    (project.path / "data/raw/none").mkdir()
    output, _, _ = ingest(project, ok=False)
    assert "error: data/raw: no usable image in class folder 'none'; add images or remove the folder" in output.stderr
    put(project, {"none/one.png": picture(9)})
    _, stored, _ = ingest(project)
    assert "none/one.png" in stored
    shutil.rmtree(project.path / "data/raw")
    (project.path / "data/raw").mkdir()
    output, _, _ = ingest(project, ok=False)
    assert "has 0 class folder(s); expected two or more" in output.stderr
