"""The disk store: equal bytes from equal images, read by index from threads and processes, refused when it is damaged."""

import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
import time
import tracemalloc
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.shared.errors import UserError
from stages.shared.files import read_json, write_bytes, write_json
from stages.shared.rad import USER_BLOCK, RadReader, Split, read_metadata, read_sample, read_split, sealed, shard_name
from stages.shared.shards import MOST_SHARDS, cuts, pack, write_rad

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 20, 20, 1), np.uint8)
LABELS = np.arange(70) % 3


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "rad.h5")
    return tmp_path / "rad.h5"


def write(path, images=IMAGES, labels=LABELS, classes=3, compression="none"):
    parts = [images[start : start + 32] for start in range(0, len(images), 32)]
    contents = {shard_name(content): content for content in (pack(part, compression) for part in parts)}
    folder = path.parent / "made"
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.h5").write_bytes(content)
    names = [shard_name(pack(part, compression)) for part in parts]
    write_rad(path, folder, names, [len(part) for part in parts], list(labels), images.shape[1], classes)


def shards(path):
    return sorted((path.parent / "shards").iterdir())


def test_the_door_opens_to_all_images_for_anyone(path, monkeypatch):
    monkeypatch.chdir("/")
    with h5py.File(path) as file:
        assert (file["images"].dtype, file["labels"].dtype) == (np.uint8, np.uint8)
        np.testing.assert_array_equal(file["images"], IMAGES)
        np.testing.assert_array_equal(file["images"][30:40], IMAGES[30:40])
        np.testing.assert_array_equal(file["labels"], LABELS)


def test_compressed_images_are_the_same_and_take_less_room(tmp_path, path):
    smooth = np.repeat(np.arange(20, dtype=np.uint8), 20).reshape(1, 20, 20, 1) + np.arange(70, dtype=np.uint8).reshape(
        70, 1, 1, 1
    )
    sizes = []
    for compression in ("none", "gzip"):
        (tmp_path / compression).mkdir()
        write(tmp_path / compression / "rad.h5", smooth, compression=compression)
        with RadReader(tmp_path / compression / "rad.h5") as rad:
            np.testing.assert_array_equal(rad.images([69, 0, 31, 32, 0]), smooth[[69, 0, 31, 32, 0]])
        with h5py.File(tmp_path / compression / "rad.h5") as file:
            np.testing.assert_array_equal(file["images"], smooth)
        sizes.append(sum(shard.stat().st_size for shard in shards(tmp_path / compression / "rad.h5")))
    assert sizes[1] < sizes[0] / 1.5


def test_a_store_written_again_holds_no_shards_but_its_own(path):
    before = shards(path)
    write(path, IMAGES[::-1])
    assert len(shards(path)) == len(before) == 3
    assert not {*shards(path)} & {*before}


names = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1), min_size=50, unique=True
)


@given(paths=names, new=st.text("abc", min_size=1))
def test_a_new_path_changes_only_the_shards_about_it(paths, new):
    before, after = sorted({*paths} - {new}), sorted({*paths, new})
    where = after.index(new)

    def cut(paths):
        return {paths[start] for start in cuts(paths)}

    assert cut(before) ^ cut(after) <= {*after[max(0, where - 4) : where + 5]}


@pytest.mark.parametrize("count", [1, 3, 400, 20_000])
def test_shards_are_neither_too_many_nor_too_small(count):
    starts = cuts([f"no/{number:05}.png" for number in range(count)])
    assert starts[0] == 0
    assert len(starts) <= 1.1 * MOST_SHARDS
    assert len(starts) >= min(MOST_SHARDS // 2, count / 10)
    assert all(np.diff(starts[1:]) > 3)


def test_more_shards_than_files_may_be_open_are_read(tmp_path):
    code = f"""
import resource, numpy as np
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from stages.shared.rad import USER_BLOCK, RadReader, sealed, shard_name
from stages.shared.shards import pack, write_rad
folder = Path({str(tmp_path)!r})
images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)
contents = [pack(images[row : row + 1], "none") for row in range(300)]
for content in contents:
    (folder / f"{{shard_name(content)}}.h5").write_bytes(content)
write_rad(folder / "rad/rad.h5", folder, [shard_name(content) for content in contents], [1] * 300, [0] * 300, 8, 2)
with RadReader(folder / "rad/rad.h5") as rad:
    assert (rad.images(range(300)) == images).all()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_many_classes_have_wider_labels(tmp_path):
    write(tmp_path / "rad.h5", labels=np.arange(70) * 5, classes=351)
    with RadReader(tmp_path / "rad.h5") as rad:
        np.testing.assert_array_equal(rad.labels, np.arange(70) * 5)


def test_equal_content_gives_equal_bytes_at_another_time(tmp_path, path):
    time.sleep(1.1)
    (tmp_path / "later").mkdir()
    write(tmp_path / "later/again.h5")
    assert (tmp_path / "later/again.h5").read_bytes() == path.read_bytes()
    assert [one.read_bytes() for one in shards(tmp_path / "later/again.h5")] == [one.read_bytes() for one in shards(path)]


@pytest.mark.parametrize("indices", [[0], [5, 6, 7], [69, 0, 31, 32], [3, 3, 3], [], list(range(70))])
def test_images_come_in_the_order_asked_for(path, indices):
    with RadReader(path) as rad:
        np.testing.assert_array_equal(rad.images(indices), IMAGES[indices])


@pytest.mark.parametrize("indices", [[70], [-1], [0, 100]])
def test_rows_that_are_not_there_are_refused(path, indices):
    with RadReader(path) as rad, pytest.raises(IndexError, match="rows 0 to 69"):
        rad.images(indices)


def test_a_batch_costs_no_more_memory_than_itself(tmp_path):
    images = np.zeros((2000, 64, 64, 1), np.uint8)
    write(tmp_path / "rad.h5", images, np.zeros(2000, int))
    with RadReader(tmp_path / "rad.h5") as rad:
        tracemalloc.start()
        rad.images(range(0, 2000, 100))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < images.nbytes / 10


def test_threads_share_a_reader(path):
    rng = np.random.default_rng(1)
    wanted = [rng.integers(0, 70, 32) for _ in range(200)]
    with RadReader(path) as rad, ThreadPoolExecutor(8) as pool:
        for indices, images in zip(wanted, pool.map(rad.images, wanted), strict=True):
            np.testing.assert_array_equal(images, IMAGES[indices])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_share_a_reader(path, start):
    rng = np.random.default_rng(2)
    wanted = [rng.integers(0, 70, 32) for _ in range(20)]
    with RadReader(path) as rad, ProcessPoolExecutor(2, get_context(start)) as pool:
        rad.images([0])
        for indices, images in zip(wanted, pool.map(rad.images, wanted), strict=True):
            np.testing.assert_array_equal(images, IMAGES[indices])


def test_reader_closes_its_files_and_opens_them_again(path):
    with RadReader(path) as rad:
        rad.images([0])
        assert str(shards(path)[0].parent) in Path("/proc/self/maps").read_text()
    assert str(shards(path)[0].parent) not in Path("/proc/self/maps").read_text()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rad)).images([4]), IMAGES[[4]])  # noqa: S301


def own(path, names=(b"0" * 32,), sizes=(70,), images=IMAGES):
    """A door that is written by hand."""
    with h5py.File(path, "w", userblock_size=USER_BLOCK) as file:
        file["images"], file["labels"] = images, LABELS.astype(np.uint8)
        file["shards"], file["shard_sizes"] = np.array(names, "S32"), np.array(sizes, np.uint32)
    path.write_bytes(sealed(path.read_bytes()))


def change(path, make):
    """Change a door by hand, so that its checksum fits."""
    with h5py.File(path, "a") as file:
        make(file)
    path.write_bytes(sealed(path.read_bytes()))


def test_damaged_doors_are_refused_in_one_line(tmp_path, path):
    (tmp_path / "half.h5").write_bytes(path.read_bytes()[:2000])
    (tmp_path / "text.h5").write_text("no HDF5")
    own(tmp_path / "other.h5", images=np.zeros((3, 4)))
    own(tmp_path / "objects.h5")
    change(tmp_path / "objects.h5", lambda file: file.pop("labels"))
    change(tmp_path / "objects.h5", lambda file: file.create_dataset("labels", (70,), h5py.string_dtype()))
    own(tmp_path / "fewer.h5", sizes=(69,))
    own(tmp_path / "none.h5", names=[b"0" * 32, b"1" * 32], sizes=(70, 0))
    own(tmp_path / "outside.h5", names=[b"../../secret"])
    for name in ("half", "text", "other", "objects", "fewer", "none", "outside", "missing"):
        with pytest.raises(UserError, match=f"{name}.h5.*dvc repro"):
            RadReader(tmp_path / f"{name}.h5")


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_damaged_shards_are_refused_in_one_line(tmp_path, compression):
    write(tmp_path / "rad.h5", compression=compression)
    shard = shards(tmp_path / "rad.h5")[0]
    whole = shard.read_bytes()
    for damaged in (b"", b"no HDF5", whole[:3000], whole[:-9], pack(IMAGES[1:33], compression)):
        shard.unlink()
        shard.write_bytes(damaged)
        with RadReader(tmp_path / "rad.h5") as rad, pytest.raises(UserError, match=f"{shard.name} is damaged.*--force ingest"):
            rad.images(range(70))
    shard.unlink()
    with RadReader(tmp_path / "rad.h5") as rad, pytest.raises(UserError, match=f"{shard.name} is missing.*--force ingest"):
        rad.images(range(70))


def test_shards_that_hold_something_else_are_refused(tmp_path):
    (tmp_path / "shards").mkdir()
    for content in (b"no HDF5", pack(IMAGES[:3], "none"), pack(IMAGES[:, 1:], "none"), pack(IMAGES[:, 1:], "gzip")):
        (tmp_path / f"shards/{shard_name(content)}.h5").write_bytes(content)
        own(tmp_path / "rad.h5", names=[shard_name(content)])
        with RadReader(tmp_path / "rad.h5") as rad, pytest.raises(UserError, match=f"{shard_name(content)}.h5 is damaged"):
            rad.images([0])


@given(place=st.integers(0, 10**6), value=st.binary(min_size=1, max_size=40), compression=st.sampled_from(["none", "gzip"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_store_that_is_damaged_anywhere_is_refused(tmp_path, place, value, compression):
    write(tmp_path / "rad.h5", compression=compression)
    for file in (tmp_path / "rad.h5", shards(tmp_path / "rad.h5")[0]):
        whole = file.read_bytes()
        start = place % len(whole)
        damaged = (whole[:start] + value + whole[start + len(value) :])[: len(whole)]
        file.unlink()
        file.write_bytes(damaged)
        if damaged != whole:
            with pytest.raises(UserError, match="is damaged"), RadReader(tmp_path / "rad.h5") as rad:
                rad.images([*range(len(rad))])
        file.write_bytes(whole)


def test_a_store_that_has_other_files_read_is_refused(tmp_path, path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(70 * 400))
    layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
    layout[:] = h5py.VirtualSource(path, "images", IMAGES.shape)
    makers = {
        "external": lambda file: file.create_dataset("images", IMAGES.shape, np.uint8, external=[(str(secret), 0, 70 * 400)]),
        "virtual": lambda file: file.create_virtual_dataset("images", layout),
        "link": lambda file: file.update({"images": h5py.ExternalLink(str(path), "images")}),
        "soft": lambda file: file.update({"images": h5py.SoftLink("/nowhere")}),
    }
    for kind, make in makers.items():
        with h5py.File(tmp_path / "shard.h5", "w") as file:
            make(file)
        name = shard_name((tmp_path / "shard.h5").read_bytes())
        (tmp_path / "shard.h5").rename(tmp_path / f"shards/{name}.h5")
        own(tmp_path / f"{kind}.h5", names=[name])
        with RadReader(tmp_path / f"{kind}.h5") as rad, pytest.raises(UserError, match="is damaged"):
            rad.images([0])
        if kind != "virtual":  # of which no value is read
            own(tmp_path / f"{kind}.h5")
            change(tmp_path / f"{kind}.h5", lambda file: file.pop("images"))
            change(tmp_path / f"{kind}.h5", make)
            with pytest.raises(UserError, match="lacks `images`"):
                RadReader(tmp_path / f"{kind}.h5")


@pytest.mark.parametrize(("count", "around"), [(60, 3), (4900, 3), (4901, 7), (10_501, 15)])
def test_shards_begin_where_the_hash_of_a_path_is_the_least_of_those_around(count, around):
    paths = [f"no/é{number:05}.png" for number in range(count)]
    hashes = [int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), sys.byteorder) for path in paths]
    least = [min(hashes[max(0, place - around) : place + around + 1]) for place in range(count)]
    assert cuts(paths) == sorted({0, *(place for place in range(count) if hashes[place] == least[place])})


def test_checksums_are_those_of_sha256():
    content = bytes(range(256)) * 4
    assert shard_name(content) == hashlib.sha256(content).hexdigest()[:32]
    assert sealed(content) == hashlib.sha256(content[512:]).hexdigest().encode() + bytes(448) + content[512:]


@pytest.mark.parametrize(("classes", "kind"), [(256, np.uint8), (257, np.uint16)])
def test_labels_are_as_wide_as_the_last_class_needs(tmp_path, classes, kind):
    write(tmp_path / "rad.h5", labels=[classes - 1 - row for row in range(70)], classes=classes)
    with h5py.File(tmp_path / "rad.h5") as file:
        assert file["labels"].dtype == kind
        assert file["labels"][:3].tolist() == [classes - 1, classes - 2, classes - 3]


@pytest.mark.parametrize("can_link", [True, False])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_shard_may_stand_there_twice_and_need_not_be_linked(tmp_path, monkeypatch, can_link, compression):
    if not can_link:
        monkeypatch.setattr(os, "link", lambda *_: os.stat("/nowhere"))
    names = []
    for start, end in ((0, 3), (3, 10)):
        content = pack(IMAGES[start:end], compression)
        names.append(shard_name(content))
        (tmp_path / f"{names[-1]}.h5").write_bytes(content)
    rows = [*range(3, 10), 0, 1, 2, *range(3, 10)]
    write_rad(tmp_path / "rad/rad.h5", tmp_path, [names[1], *names], [7, 3, 7], [row % 5 for row in rows], 20, 5)
    with RadReader(tmp_path / "rad/rad.h5") as rad:
        np.testing.assert_array_equal(rad.images(range(17)), IMAGES[rows])
        assert rad.shape == (17, 20, 20, 1)
        assert rad.labels.tolist() == [row % 5 for row in rows]
    assert [path.samefile(tmp_path / path.name) for path in shards(tmp_path / "rad/rad.h5")] == [can_link] * 2
    with h5py.File(tmp_path / "rad/rad.h5") as file:
        np.testing.assert_array_equal(file["images"], IMAGES[rows])


def test_a_shard_that_was_damaged_is_put_right_when_the_store_is_written_again(path):
    damaged = shards(path)[0]
    damaged.unlink()
    damaged.write_bytes(b"damaged")
    write(path)
    with RadReader(path) as rad:
        np.testing.assert_array_equal(rad.images(range(70)), IMAGES)


FACTS = {"sha256": "0" * 64, "perceptual_hash": "1" * 64, "whole_hash": "2" * 64, "width": 3, "height": 4, "mode": "L"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"path": "no/a..b.png"}, None),
        ({"path": "/no/a.png"}, "leads out of data.source"),
        ({"path": "no/../../a.png"}, "leads out of data.source"),
        ({"class": "maybe"}, "does not list the class 'maybe'"),
        ({"sha256": "0" * 63}, "is not what it should be"),
        ({"levels": [0.0]}, "is not what it should be"),
    ],
)
def test_metadata_are_read_if_paths_and_classes_are_those_of_a_source(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    images = [{"path": f"{name}/a.png", "class": name, **FACTS, "levels": [0.0, 255.0]} for name in ("no", "yes")]
    images[1] |= change
    content = {"classes": ["no", "yes"], "images": images, "rejected": [{"path": "b", "reason": "c"}]}
    write_json("data/rad/metadata.json", content)
    if message:
        with pytest.raises(UserError, match=message):
            read_metadata()
    else:
        assert read_metadata() == content


@pytest.mark.parametrize(
    ("test", "training", "groups", "is_right"),
    [
        ([2, 0], [1, 3], [0, 1, 2, 3], True),
        ([2, 0], [1], [0, 1, 2, 3], False),
        ([2, 0], [1, 3, 2], [0, 1, 2, 3], False),
        ([2, 4], [1, 3], [0, 1, 2, 3], False),
        ([2, 0], [1, 3], [0, 1, 2], False),
        ([2, 0], [1, 3], [0, 1, 2, 3, 4], False),
    ],
)
def test_a_split_has_every_image_once(tmp_path, monkeypatch, test, training, groups, is_right):
    monkeypatch.chdir(tmp_path)
    write_json("data/split.json", content := {"test": test, "training": training, "groups": groups})
    if is_right:
        assert read_split(4) == content
    else:
        with pytest.raises(UserError, match="not a split of the 4 images"):
            read_split(4)


@pytest.mark.parametrize(
    ("in_bag", "out_of_bag", "is_right"),
    [([5, 5, 7], [9], True), ([5], [6], False), ([4, 5], [9], False), ([5, 9], [7, 9], False)],
)
def test_a_sample_is_of_the_training_images_and_leaves_others_out(tmp_path, monkeypatch, in_bag, out_of_bag, is_right):
    monkeypatch.chdir(tmp_path)
    write_json("data/bootstrap/member-03.json", {"in_bag": in_bag, "out_of_bag": out_of_bag})
    if is_right:
        assert read_sample("member-03", {5, 7, 9}) == (in_bag, out_of_bag)
    else:
        with pytest.raises(UserError, match="was not drawn from these images"):
            read_sample("member-03", {5, 7, 9})


def test_an_image_that_unpacks_to_fewer_bytes_is_refused(tmp_path):
    shard = tmp_path / "shard.h5"
    shard.write_bytes(pack(IMAGES, "gzip"))
    with h5py.File(shard, "a") as file:
        file["images"].id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(399)))
    name = shard_name(shard.read_bytes())
    (tmp_path / "shards").mkdir()
    shard.rename(tmp_path / f"shards/{name}.h5")
    own(tmp_path / "rad.h5", names=[name])
    with RadReader(tmp_path / "rad.h5") as rad:
        np.testing.assert_array_equal(rad.images([1]), IMAGES[[1]])
        with pytest.raises(UserError, match="399 bytes in an image of 400"):
            rad.images([0])


def test_json_has_one_form_and_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deeper/a.json"
    write_json(path, {"b": [1, 2.5], "a": {"c": None, "d": {}}, "e": [{"f": 1, "g": [2]}, [3]], "h": "é", "i": [[1], [2]]})
    text = '{\n  "b": [1, 2.5],\n  "a": {\n    "c": null,\n    "d": {}\n  },\n'
    text += '  "e": [\n    {"f": 1, "g": [2]},\n    [3]\n  ],\n  "h": "\\u00e9",\n  "i": [\n    [1],\n    [2]\n  ]\n}\n'
    assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o644
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            write_json(path, {"b": [value]})
    with pytest.raises(TypeError):
        write_bytes(path, "text")
    monkeypatch.setattr(os, "replace", lambda *_: os.stat("/nowhere"))
    with pytest.raises(OSError, match=re.escape(str(path))):
        write_bytes(path, b"new")
    assert path.read_text() == text
    assert [*path.parent.iterdir()] == [path]


def test_json_is_read_strictly_and_without_unknown_keys(tmp_path):
    content = {"test": [0], "training": [1], "groups": [0, 1]}
    (tmp_path / "a.json").write_text(json.dumps(content | {"more": 1}))
    assert read_json(tmp_path / "a.json", Split) == content
    for test in ([0.0], ["0"], [True], [-1], None):
        (tmp_path / "a.json").write_text(json.dumps(content | {"test": test}))
        with pytest.raises(UserError, match="is not what it should be"):
            read_json(tmp_path / "a.json", Split)
