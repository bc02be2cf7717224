"""The decode cache returns records and pixels of the last run while they are valid."""

import os
import re
import shutil
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import h5py
import numpy as np
import pytest

from brainmri.common.params import Ingest
from brainmri.images import cache, decoding
from brainmri.images.cache import DecodeCache, file_identity
from brainmri.store import writer

SETTINGS = {"compression": "none", "crop": False, "image_size": 16, "strict": False}
ATTRIBUTES = {
    "sha256": "0",
    "perceptual_hashes": ["1", "2", "3", "4"],
    "width": 3,
    "height": 4,
    "mode": "L",
    "levels": [0, 255],
}
IDENTIFIERS = {"patient": "5", "study": "6"}


def open_cache(folder: Path, **changes) -> DecodeCache:
    return DecodeCache(Ingest(**SETTINGS | changes), folder)


def image_of(pixels: np.ndarray) -> SimpleNamespace:
    """Return a decoded image of these pixels."""
    return SimpleNamespace(pixels=pixels, **IDENTIFIERS, **ATTRIBUTES)


def test_shards_of_new_and_cached_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16), np.uint8)
    with open_cache(tmp_path) as first:
        records = [first.add(str(index), image_of(pixels[index])) for index in (0, 1, 1)]
        assert records[1] == records[2]
        others = {"pixels": records[0].pixels, **IDENTIFIERS}
        assert records[0]._asdict() == ATTRIBUTES | others
        assert records[0].metadata == ATTRIBUTES
        unidentified = first.add(None, image_of(pixels[2]))
        hashes = [record.pixels for record in (records[0], records[1], unidentified)]
        assert len({*hashes}) == 3
        rising, falling = sorted(hashes), sorted(hashes, reverse=True)
        name = first.write_shard(falling)
        assert first.write_shard(rising) != name
        assert first.write_shard(falling) == name
        first.save_index([name])
    with open_cache(tmp_path) as second:
        assert second.get("0") == records[0]
        assert second.get("2") is None
        assert second.get(None) is None
        new = second.add(None, image_of(pixels[5])).pixels
        assert second.get(None) is None
        second.add("again", image_of(pixels[2]))
        name = second.write_shard([hashes[1], new, hashes[0], hashes[2], hashes[1]])
        second.get("1")
        second.save_index([name])
    with h5py.File(tmp_path / f"{name}.h5") as file:
        np.testing.assert_array_equal(file["images"][..., 0], pixels[[1, 5, 0, 2, 1]])
    assert [path.stem for path in tmp_path.glob("*.h5")] == [name]
    with open_cache(tmp_path) as third:
        assert third.get("0") == records[0]
        assert third.get("1") == records[1]
        assert third.get("again").pixels == hashes[2]


def test_files_of_older_runs_are_dropped(tmp_path):
    pixels = np.zeros((16, 16), np.uint8)
    with open_cache(tmp_path) as first:
        hashes = {first.add(name, image_of(pixels)).pixels for name in ("removed", "kept")}
        first.save_index([first.write_shard([*hashes])])
    with open_cache(tmp_path) as second:
        assert second.get("kept")
        second.save_index([second.write_shard([*hashes])])
    with open_cache(tmp_path) as third:
        assert third.get("kept")
        assert third.get("removed") is None


@pytest.mark.parametrize(
    ("change", "is_valid"),
    [
        ({"image_size": 17}, False),
        ({"crop": True}, False),
        ({"compression": "gzip"}, False),
        ({"strict": True}, True),
        ({}, True),
    ],
)
def test_cache_is_valid_for_equal_decoding_params(tmp_path, change, is_valid):
    with open_cache(tmp_path) as first:
        record = first.add("file", image_of(np.zeros((16, 16), np.uint8)))
        first.save_index([first.write_shard([record.pixels])])
    with open_cache(tmp_path, **change) as second:
        assert (second.get("file") is not None) == is_valid


def imported_modules(module: ModuleType) -> set[ModuleType]:
    """Return a module of brainmri.images and those that it imports, directly or not."""
    names = re.findall(r"^from (brainmri\.images\.\w+) import", source_of(module), re.MULTILINE)
    return {module}.union(*(imported_modules(import_module(name)) for name in names))


def source_of(module: ModuleType) -> str:
    return Path(module.__file__).read_text("utf-8")


def test_cache_depends_on_all_modules_that_decode():
    assert {*cache.DECODING_MODULES} == {*imported_modules(decoding), writer}


def test_cached_files_need_an_unchanged_shard(tmp_path):
    with open_cache(tmp_path) as first:
        records = [
            first.add(str(level), image_of(np.full((16, 16), level, np.uint8)))
            for level in range(3)
        ]
        names = [first.write_shard([record.pixels]) for record in records[:2]]
        first.save_index(names)
    os.utime(tmp_path / f"{names[0]}.h5", (1, 1))
    with open_cache(tmp_path) as second:
        are_cached = [second.get(str(level)) is not None for level in range(3)]
    assert are_cached == [False, True, False]


@pytest.mark.parametrize(("age_ns", "is_identified"), [(99_999_999, False), (100_000_000, True)])
def test_recently_changed_files_have_no_identity(tmp_path, monkeypatch, age_ns, is_identified):
    path = tmp_path / "a.png"
    assert file_identity(path) is None
    path.write_bytes(b"1")
    os.utime(path, ns=(10**18, 10**18))
    clock = SimpleNamespace(time_ns=lambda: path.stat().st_ctime_ns + age_ns)
    monkeypatch.setattr(cache, "time", clock)
    assert (file_identity(path) is not None) == is_identified


def test_identity_is_inode_size_and_times(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "RECENT_NS", 0)
    path = tmp_path / "a.png"
    identities = []
    for content, time_ns in ((b"1", 10**9), (b"12", 10**9), (b"12", 10**9 + 1)):
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))
        identities.append(file_identity(path))
    copy = shutil.copy2(path, tmp_path / "b.png")
    assert len({*identities, file_identity(copy)}) == 4
    time.sleep(0.02)  # the clock of the file system may be as coarse
    os.link(path, tmp_path / "c.png")
    assert file_identity(tmp_path / "c.png") == file_identity(path) != identities[-1]


def test_a_file_unpacked_into_the_inode_of_another_is_another(tmp_path, monkeypatch):
    """Of the same size, with the archive's time of modification."""
    monkeypatch.setattr(cache, "RECENT_NS", 0)
    path = tmp_path / "a.png"
    identities = set()
    for content in (b"1", b"2"):
        path.write_bytes(content)  # keeps the inode
        os.utime(path, ns=(10**18, 10**18))
        identities.add((path.stat().st_ino, file_identity(path)))
        time.sleep(0.02)
    assert len(identities) == 2
