"""Whatever lies in a source: what can be used is in the store, what can not is told in one line each, and nothing is lost."""

import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yaml
from conftest import ROOT, Output, Project, picture, put
from PIL import Image

from stages import ingest as stage
from stages.shared.decoded import Decoded, identity
from stages.shared.errors import UserError
from stages.shared.images import decode
from stages.shared.params import Ingest

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


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder, the current one, with params.yaml of a source that is not there yet."""
    monkeypatch.chdir(tmp_path)
    set_params()
    return tmp_path


def set_params(**values) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"]["source"] = "data/raw"
    params["ingest"] |= {"image_size": 32, "crop": False, **values}
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def in_store() -> tuple[np.ndarray, list[int], dict, dict]:
    with h5py.File("data/rad/image_data.h5") as file:
        images, labels = file["images"][:], file["labels"][:].tolist()
    return images, labels, *(json.loads(Path(path).read_text()) for path in ("data/rad/metadata.json", "metrics/ingest.json"))


def grey(seed: int, height: int = 32, width: int = 32, **options) -> tuple[np.ndarray, bytes]:
    levels, content = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8), io.BytesIO()
    Image.fromarray(levels).save(content, "PNG", **options)
    return levels, content.getvalue()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_each_row_has_the_pixels_the_label_and_the_facts_of_its_file(workplace, capsys, compression):
    set_params(compression=compression)
    paths = ["a/2.png", "a/y/1.png", "a/z.png", "b/1.png", "b/x.png", "c/0.png", "c/1.png", "c/10.png", "c/2.png", "c/é.png"]
    shapes = {"b/1.png": (16, 32), "c/0.png": (64, 32)}
    made = {path: grey(seed, *shapes.get(path, (32, 32))) for seed, path in enumerate(paths)}
    put(Project(workplace), {path: content for path, (_, content) in reversed(made.items())})
    put(Project(workplace), {"c/9.png": b"", "a/1.png": b"x", "notes.txt": b"x"})
    put(Project(workplace), {"b/both.png": grey(99)[1], "c/both.png": grey(99, compress_level=1)[1]})
    stage.main()
    images, labels, metadata, metrics = in_store()
    assert metadata["classes"] == ["a", "b", "c"]
    assert labels == [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]
    for row, (path, (levels, content)) in enumerate(made.items()):
        expected = np.zeros((32, 32), np.uint8)
        if path == "b/1.png":
            expected[8:24] = levels
        elif path == "c/0.png":
            expected[:, 8:24] = Image.fromarray(levels).resize((16, 32), Image.Resampling.BICUBIC)
        else:
            expected = levels
        np.testing.assert_array_equal(images[row, :, :, 0], expected)
        assert metadata["images"][row] == {
            "path": path,
            "class": path[0],
            "sha256": hashlib.sha256(content).hexdigest(),
            "perceptual_hash": decode(f"data/raw/{path}", 32).perceptual_hash,
            "whole_hash": decode(f"data/raw/{path}", 32).whole_hash,
            "width": levels.shape[1],
            "height": levels.shape[0],
            "mode": "L",
            "levels": [0, 255],
        }
    rejected = ["notes.txt", "a/1.png", "b/both.png", "c/9.png", "c/both.png"]
    assert [file["path"] for file in metadata["rejected"]] == rejected
    assert metrics == {"images": 10, "rejected": 5, "classes": {"a": 3, "b": 2, "c": 5}}
    assert list(metrics["classes"]) == ["a", "b", "c"]
    assert "10 images of 3 classes, 5 files left out" in capsys.readouterr().out


@pytest.mark.parametrize("crop", [True, False])
def test_the_store_holds_heads_or_whole_pictures_as_the_parameter_says(workplace, crop):
    set_params(crop=crop)
    for seed, path in enumerate(("no/a.png", "yes/b.png")):
        levels = np.zeros((64, 64), np.uint8)
        levels[10:42, 20:52] = np.random.default_rng(seed).integers(60, 256, (32, 32))
        put(Project(workplace), {path: b""})
        Image.fromarray(levels).save(f"data/raw/{path}")
    stage.main()
    expected = levels[10:42, 20:52] if crop else np.asarray(Image.fromarray(levels).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(in_store()[0][1, :, :, 0], expected)


def test_a_second_run_decodes_only_new_files_and_stores_all(workplace, monkeypatch):
    paths = [f"{name}/{index}.png" for name in ("no", "yes") for index in range(20)]
    made = {path: grey(seed) for seed, path in enumerate(paths)}
    put(Project(workplace), {path: content for path, (_, content) in made.items() if path != "no/7.png"})
    settle(Project(workplace))
    stage.main()
    put(Project(workplace), {"no/7.png": made["no/7.png"][1]})
    asked = []

    def decode_all(files, *options):
        asked.extend(files := list(files))
        return ((path, decode(path, 32)) for path in files)

    monkeypatch.setattr(stage, "decode_all", decode_all)
    stage.main()
    assert asked == [Path("data/raw/no/7.png")]
    images, labels, metadata, _ = in_store()
    assert [image["path"] for image in metadata["images"]] == sorted(paths)
    assert labels == [0] * 20 + [1] * 20
    np.testing.assert_array_equal(images[..., 0], [made[path][0] for path in sorted(paths)])


def test_a_source_that_can_not_be_used_leaves_the_store_as_it_is(workplace):
    put(Project(workplace), {"no/a.png": grey(1)[1], "yes/a.png": grey(2)[1], "yes/b.png": b"x"})
    stage.main()
    before = stored_bytes(Project(workplace))
    set_params(strict=True)
    with pytest.raises(UserError, match="1 files can't be used"):
        stage.main()
    set_params()
    put(Project(workplace), {"yes/a.png": b"x"})
    with pytest.raises(UserError, match="no usable image in class folder 'yes'"):
        stage.main()
    put(Project(workplace), {"yes/a.png": grey(1)[1]})
    with pytest.raises(UserError, match="no usable image in class folder 'no', 'yes'"):
        stage.main()
    assert stored_bytes(Project(workplace)) == before
    stage.check(Path("raw"), ["a"], Counter(a=1), [], strict=True)


def test_a_picture_in_two_classes_is_out_of_both_and_names_the_first_path_of_the_first_other():
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
    files = [(path[0], path) for path in [*pixels, "c/unread"]]
    reasons = stage.in_two_classes(files, {path: SimpleNamespace(pixels=name) for path, name in pixels.items()})
    others = {"a/1": "b/2", "a/3": "b/2", "b/1": "c/2", "b/2": "a/1", "b/3": "a/1", "c/1": "a/1", "c/2": "b/1"}
    assert reasons == {path: f"the same picture is in another class: {other!r}" for path, other in others.items()}


SETTINGS = {"compression": "none", "crop": False, "image_size": 16, "strict": False}


def decoded(folder: Path, **changes) -> Decoded:
    return Decoded(Ingest(**SETTINGS | changes), folder)


def with_pixels(pixels: np.ndarray) -> SimpleNamespace:
    facts = {"sha256": "0", "perceptual_hash": "1", "whole_hash": "2", "width": 3, "height": 4, "mode": "L", "levels": [0, 255]}
    return SimpleNamespace(pixels=pixels, **facts)


def test_shards_hold_the_images_in_the_order_asked_for_from_this_run_and_the_last(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16), np.uint8)
    with decoded(tmp_path) as first:
        facts = [first.add(str(index), with_pixels(pixels[index])) for index in (0, 1, 2, 1)]
        assert facts[1] == facts[3]
        assert facts[0]._asdict() == {**vars(with_pixels(None)), "pixels": facts[0].pixels}
        hashes = [fact.pixels for fact in facts[:3]]
        assert len({*hashes}) == 3
        rising, name = first.shard(sorted(hashes)), first.shard(sorted(hashes, reverse=True))
        assert first.shard(sorted(hashes, reverse=True)) == name != rising
        first.keep({"0", "1"}, [name])
    with decoded(tmp_path) as second:
        assert second.known("0") == facts[0]
        assert second.known("2") is second.known(None) is None
        new = second.add(None, with_pixels(pixels[5])).pixels
        assert second.known(None) is None
        second.add("again", with_pixels(pixels[2]))
        other = second.shard([hashes[1], new, hashes[0], hashes[2], hashes[1]])
        second.keep({"1", "again"}, [other])
    with h5py.File(tmp_path / f"{other}.h5") as file:
        np.testing.assert_array_equal(file["images"][..., 0], pixels[[1, 5, 0, 2, 1]])
    assert [path.stem for path in tmp_path.glob("*.h5")] == [other]
    with decoded(tmp_path) as third:
        assert third.known("1") == facts[1]
        assert third.known("again").pixels == hashes[2]
        assert third.known("0") is None


@pytest.mark.parametrize("change", [{"image_size": 17}, {"crop": True}, {"compression": "gzip"}, {"strict": True}, {}])
def test_what_was_decoded_counts_while_the_parameters_of_decoding_are_the_same(tmp_path, change):
    with decoded(tmp_path) as first:
        facts = first.add("file", with_pixels(np.zeros((16, 16), np.uint8)))
        first.keep({"file"}, [first.shard([facts.pixels])])
    with decoded(tmp_path, **change) as second:
        assert (second.known("file") is None) == (change not in ({"strict": True}, {}))


def test_files_count_whose_pixels_are_in_a_shard_that_is_as_it_was(tmp_path):
    with decoded(tmp_path) as first:
        facts = [first.add(str(level), with_pixels(np.full((16, 16), level, np.uint8))) for level in range(3)]
        names = [first.shard([facts[index].pixels]) for index in range(2)]
        first.keep({"0", "1", "2"}, names)
    os.utime(tmp_path / f"{names[0]}.h5", (1, 1))
    with decoded(tmp_path) as second:
        assert [second.known(str(index)) is not None for index in range(3)] == [False, True, False]


def test_a_file_is_told_by_inode_size_and_time_of_change_unless_it_changed_just_now(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    assert identity(path) is None
    path.write_bytes(b"1")
    os.utime(path, ns=(10**18, 10**18))
    for later_ns, is_known in ((99_999_999, False), (100_000_000, True)):
        clock = SimpleNamespace(time_ns=lambda later_ns=later_ns: 10**18 + later_ns)
        monkeypatch.setattr("stages.shared.decoded.time", clock)
        assert (identity(path) is not None) == is_known
    times = []
    for content, time_ns in ((b"1", 10**9), (b"12", 10**9), (b"12", 10**9 + 1)):
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))
        times.append(identity(path))
    copy = shutil.copy2(path, tmp_path / "b.png")
    assert len({*times, identity(copy)}) == 4
    os.link(path, tmp_path / "c.png")
    assert identity(tmp_path / "c.png") == times[-1]
