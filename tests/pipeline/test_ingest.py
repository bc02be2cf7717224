"""The stage `ingest` as users run it: it stores usable files, and reports others in a line each."""

import io
import json
import os
import shlex
import shutil
import subprocess

import h5py
import pytest
from PIL import Image

from tests.support.images import encode_noise, write_raw_files
from tests.support.ingest import DVC_INGEST, INGEST, run_ingest
from tests.support.project import Project

# Root may read every file, unless a process gave up that privilege
PRIVILEGES = "-dac_override,-dac_read_search"
UNPRIVILEGED = (
    ("setpriv", "--bounding-set", PRIVILEGES, "--inh-caps", PRIVILEGES) if os.geteuid() == 0 else ()
)


def can_drop_privileges() -> bool:
    command = f"{shlex.join(UNPRIVILEGED)} true"
    return not UNPRIVILEGED or subprocess.run(["sh", "-c", command]).returncode == 0


needs_permissions = pytest.mark.skipif(
    not can_drop_privileges(), reason="root can't give up its privileges here"
)


def encode(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def encode_animation() -> bytes:
    content = io.BytesIO()
    frames = [Image.new("L", (40, 40), level) for level in (0, 100, 200)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    return content.getvalue()


SIDEWAYS = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
USABLE = {
    "gray.png": encode_noise(1),
    "color.jpg": encode_noise(2, "JPEG", "RGB"),
    "print.jpg": encode_noise(3, "JPEG", "CMYK"),
    "palette.png": encode_noise(4, "PNG", "P", transparency=0),
    "deep.png": encode_noise(5, "PNG", "I;16"),
    "sideways.jpg": encode_noise(6, "JPEG", exif=SIDEWAYS),
    "x" * 251 + ".png": encode_noise(7),
    "deeper/and/deeper/scan.png": encode_noise(8),
}
UNUSABLE = {
    "empty.png": (b"", "empty file"),
    "cut.jpg": (encode_noise(9, "JPEG")[:500], "broken image"),
    "cut.png": (encode_noise(9)[:500], "broken image"),
    "page.jpg": (b"<!DOCTYPE html><p>404", "not an image of a known format"),
    "other format.png": (b"P5 40 40 255 " + bytes(1600), "not an image of a known format"),
    "dot.png": (encode(Image.new("L", (1, 1))), "1×1 pixels are too few"),
    "bomb.png": (encode(Image.new("1", (19_000, 19_000))), "at most 100,000,000 in all are read"),
    "wide.png": (encode(Image.new("1", (20_001, 40))), "a side may have 20,000"),
    "moving.gif": (encode_animation(), "2 frames or more"),
}
IMAGES = {f"{name}/{index}.png" for name in ("no", "yes") for index in range(4)}


def store_files(project: Project) -> dict[str, bytes]:
    """Return the content of each file of the store, by its path there."""
    folder = project.path / "data/rad"
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def store_files_of_fresh_run(project: Project) -> dict[str, bytes]:
    """Return what is stored when nothing is cached."""
    shutil.rmtree(project.path / ".dvc/tmp/ingest")
    shutil.rmtree(project.path / "data/rad")
    run_ingest(project)
    return store_files(project)


def age_files(project: Project) -> None:
    """Give the files equal times of modification."""
    for path in (project.path / "data/raw").rglob("*.png"):
        os.utime(path, (1, 1))


def test_usable_files_are_stored_and_others_reported(project):
    write_raw_files(project, {f"yes/{name}": content for name, content in USABLE.items()})
    write_raw_files(project, {f"no/{name}": content for name, (content, _) in UNUSABLE.items()})
    others = {
        "no/.hidden.png": encode_noise(9),
        "no/Thumbs.db": b"x",
        ".cache/a.png": encode_noise(9),
        "notes.txt": b"x",
    }
    write_raw_files(project, others)
    _, stored, reasons = run_ingest(project)
    assert stored == IMAGES | {f"yes/{name}" for name in USABLE}
    assert set(reasons) == {"notes.txt", *(f"no/{name}" for name in UNUSABLE)}
    for name, (_, reason) in UNUSABLE.items():
        assert reason in reasons[f"no/{name}"]


def test_levels_are_stored_and_blanks_rejected(project):
    blank = encode(Image.new("L", (40, 40), 90))
    deep = encode_noise(5, "PNG", "I;16")
    write_raw_files(project, {"yes/deep.png": deep, "no/blank.png": blank})
    _, _, reasons = run_ingest(project)
    metadata = json.loads(project.read("data/rad/metadata.json"))
    levels = {image["path"]: image["levels"] for image in metadata["images"]}
    assert levels["no/0.png"] == [0, 255]
    black, white = levels["yes/deep.png"]
    assert 0 <= black < white <= 255  # all that the conversion to 16 bits leaves
    reason = "1 distinct gray level(s), as of a mask or a blank; 8 or more are expected"
    assert reasons == {"no/blank.png": reason}
    run_ingest(project)  # from the decode cache
    assert json.loads(project.read("data/rad/metadata.json")) == metadata


def test_links_are_followed_to_files_of_the_source(project):
    source = project.path / "data/raw"
    elsewhere = project.path.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "scan.png").write_bytes(encode_noise(9))
    for name, target in {
        "inside.png": source / "yes/0.png",
        "folder": elsewhere,
        "loop.png": "loop.png",
        "gone.png": "nowhere.png",
        "again": source / "no",
    }.items():
        (source / "yes" / name).symlink_to(target)
    _, stored, reasons = run_ingest(project)
    assert "yes/inside.png" in stored
    assert reasons == {
        "yes/again": "a symbolic link to a folder",
        "yes/folder": "a symbolic link out of data.source",
        "yes/gone.png": "a symbolic link to nowhere",
        "yes/loop.png": "a symbolic link to nowhere",
    }


def test_link_out_of_the_source_is_an_error(project):
    """Were it skipped, so would be the copy that replaces it: DVC sees the same content."""
    (project.path.parent / "scan.png").write_bytes(encode_noise(9))
    link = project.path / "data/raw/yes/outside.png"
    link.symlink_to(project.path.parent / "scan.png")
    output, _, _ = run_ingest(project, ok=False, command=DVC_INGEST)
    message = "error: 'data/raw/yes/outside.png' is a symbolic link out of data.source"
    assert message in output.stderr
    link.unlink()
    link.write_bytes(encode_noise(9))
    _, stored, _ = run_ingest(project, command=DVC_INGEST)
    assert "yes/outside.png" in stored


@needs_permissions
def test_unreadable_files_are_skipped(project):
    source = project.path / "data/raw"
    (source / "yes/gone.png").symlink_to("nowhere.png")
    (source / "yes/loop.png").symlink_to("loop.png")
    closed = source / "yes/closed.png"
    closed.write_bytes(encode_noise(9))
    closed.chmod(0)
    os.mkfifo(source / "yes/pipe.png")
    with open(os.fsencode(source) + b"/yes/latin-\xe9.png", "wb") as file:
        file.write(encode_noise(9))
    (source / "yes/two\nlines.png").write_bytes(encode_noise(8))
    _, stored, reasons = run_ingest(project, command=(*UNPRIVILEGED, *INGEST))
    assert "yes/two\nlines.png" in stored
    assert reasons == {
        "yes/closed.png": "Permission denied",
        "yes/gone.png": "a symbolic link to nowhere",
        "yes/latin-\udce9.png": "its name is not UTF-8; rename it",
        "yes/loop.png": "a symbolic link to nowhere",
        "yes/pipe.png": "not a regular file",
    }
    closed.chmod(0o644)
    _, stored, reasons = run_ingest(project)
    assert "yes/closed.png" in stored
    assert len(reasons) == 4


@needs_permissions
def test_unreadable_folder_is_an_error(project):
    (project.path / "data/raw/yes/closed").mkdir(0)
    output, _, _ = run_ingest(project, ok=False, command=(*UNPRIVILEGED, *INGEST))
    message = "'data/raw/yes/closed' can't be listed (Permission denied); repair it or remove it"
    assert output.stderr == f"error: {message}\n"


def test_images_of_two_classes_are_skipped(project):
    files = {
        "no/both.png": encode_noise(9),
        "yes/both, compressed again.png": encode_noise(9, compress_level=1),
        "no/twice.png": encode_noise(8),
        "no/twice again.png": encode_noise(8),
    }
    write_raw_files(project, files)
    _, stored, reasons = run_ingest(project)
    reason = "the same image is in another class: "
    assert reasons == {
        "no/both.png": f"{reason}'yes/both, compressed again.png'",
        "yes/both, compressed again.png": f"{reason}'no/both.png'",
    }
    assert stored == IMAGES | {"no/twice.png", "no/twice again.png"}
    metadata = json.loads(project.read("data/rad/metadata.json"))
    with h5py.File(project.path / "data/rad/image_data.h5") as file:
        pixels = {
            image["path"]: file["images"][row].tobytes()
            for row, image in enumerate(metadata["images"])
        }
    assert pixels["no/twice.png"] == pixels["no/twice again.png"]
    assert len(set(pixels.values())) == 9


def test_strict_mode_refuses_unusable_files(project):
    project.edit(ingest__strict=True)
    run_ingest(project)
    before = store_files(project)
    write_raw_files(project, {"no/broken.png": b"x"})
    output, _, _ = run_ingest(project, ok=False)
    assert "skipped: 'no/broken.png': not an image of a known format" in output.stdout
    assert "error: data/raw: 1 files can't be used, and ingest.strict allows none" in output.stderr
    assert store_files(project) == before


def test_linked_class_folder_is_named(project):
    (project.path / "data/raw/yes").rename(project.path.parent / "yes")
    (project.path / "data/raw/yes").symlink_to(project.path.parent / "yes")
    output, _, _ = run_ingest(project, ok=False)
    message = "'data/raw' has 1 class folder(s); expected two or more, one for each class, or a"
    assert f"{message} table of labels (data.labels) ('yes': a symbolic link" in output.stderr


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_changed_store_equals_that_of_a_fresh_run(project, compression):
    project.edit(ingest__compression=compression)
    raw = project.path / "data/raw"
    files = {
        f"{name}/{index:03}.png": encode_noise(1000 * label + index)
        for label, name in ((1, "no"), (2, "yes"))
        for index in range(60)
    }
    write_raw_files(project, files)
    age_files(project)
    run_ingest(project)
    before = store_files(project)

    files = {
        "no/0305.png": encode_noise(7),
        "yes/0601.png": encode_noise(8),
        "yes/broken.png": b"x",
        "yes/040.png": encode_noise(9),
        "no/same as yes 30.png": encode_noise(2030),
    }
    write_raw_files(project, files)
    (raw / "no/010.png").unlink()
    (raw / "no/020.png").rename(raw / "yes/a.png")
    _, stored, reasons = run_ingest(project)
    assert {"no/0305.png", "yes/0601.png", "yes/a.png", "yes/040.png"} <= stored
    assert {*reasons} == {"yes/broken.png", "no/same as yes 30.png", "yes/030.png"}
    after = store_files(project)
    kept = [name for name in after if name.startswith("shards/") and name in before]
    assert len(kept) >= 5
    assert after == store_files_of_fresh_run(project)


def test_other_content_and_a_damaged_cache_are_noticed(project):
    age_files(project)
    run_ingest(project)
    for path in (project.path / "data/raw/no").iterdir():
        path.write_bytes(b"?" * path.stat().st_size)
    age_files(project)  # so size and time of modification are as before
    output, _, _ = run_ingest(project, ok=False)
    assert "no usable image of class 'no'" in output.stderr

    write_raw_files(project, {f"no/{index}.png": encode_noise(100 + index) for index in range(4)})
    age_files(project)
    run_ingest(project)
    before = store_files(project)
    for path in (project.path / ".dvc/tmp/ingest").glob("*.h5"):
        path.unlink()  # not the store's, to which it may be a link
        path.write_bytes(b"damaged")
    run_ingest(project)
    assert store_files(project) == before
    for damaged in (b"{", b"[]", b'{"fingerprint": 1}'):
        (project.path / ".dvc/tmp/ingest/index.json").write_bytes(damaged)
        run_ingest(project)
        assert store_files(project) == before


def test_empty_classes_are_refused(project):
    (project.path / "data/raw/none").mkdir()
    output, _, _ = run_ingest(project, ok=False)
    message = "no usable image of class 'none'; add images, or remove the class"
    assert f"error: data/raw: {message}" in output.stderr
    write_raw_files(project, {"none/one.png": encode_noise(9)})
    _, stored, _ = run_ingest(project)
    assert "none/one.png" in stored
    shutil.rmtree(project.path / "data/raw")
    (project.path / "data/raw").mkdir()
    output, _, _ = run_ingest(project, ok=False)
    assert "has 0 class folder(s); expected two or more" in output.stderr
