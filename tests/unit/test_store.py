"""The store: equal images give equal bytes; images are read by row, from threads and processes."""

import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainmri.store.format import shard_name
from brainmri.store.reader import RadReader
from brainmri.store.writer import encode_shard, write_store
from tests.support.checkout import ROOT
from tests.support.store import IMAGES, LABELS, make_store, shard_paths


@pytest.fixture
def path(tmp_path):
    """The index file of a small store."""
    make_store(tmp_path / "rad.h5")
    return tmp_path / "rad.h5"


def test_index_file_opens_from_anywhere(path, monkeypatch):
    monkeypatch.chdir("/")
    with h5py.File(path) as file:
        assert (file["images"].dtype, file["labels"].dtype) == (np.uint8, np.uint8)
        np.testing.assert_array_equal(file["images"], IMAGES)
        np.testing.assert_array_equal(file["images"][30:40], IMAGES[30:40])
        np.testing.assert_array_equal(file["labels"], LABELS)


def test_compressed_images_are_equal_and_smaller(tmp_path):
    gradient = np.repeat(np.arange(20, dtype=np.uint8), 20).reshape(1, 20, 20, 1)
    images = gradient + np.arange(70, dtype=np.uint8).reshape(70, 1, 1, 1)
    rows = [69, 0, 31, 32, 0]
    sizes = {}
    for compression in ("none", "gzip"):
        path = tmp_path / compression / "rad.h5"
        path.parent.mkdir()
        make_store(path, images, compression=compression)
        with RadReader(path) as rad:
            np.testing.assert_array_equal(rad.images(rows), images[rows])
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["images"], images)
        sizes[compression] = sum(shard.stat().st_size for shard in shard_paths(path))
    assert sizes["gzip"] < sizes["none"] / 1.5


def test_new_store_keeps_no_old_shards(path):
    before = shard_paths(path)
    make_store(path, IMAGES[::-1])
    after = shard_paths(path)
    assert len(after) == len(before) == 3
    assert not {*after} & {*before}


def test_damaged_shard_is_replaced(path):
    damaged = shard_paths(path)[0]
    damaged.unlink()
    damaged.write_bytes(b"damaged")
    make_store(path)
    with RadReader(path) as rad:
        np.testing.assert_array_equal(rad.images(range(70)), IMAGES)


def test_bytes_are_equal_at_another_time(tmp_path, path):
    time.sleep(1.1)
    (tmp_path / "later").mkdir()
    later = tmp_path / "later/again.h5"
    make_store(later)
    assert later.read_bytes() == path.read_bytes()
    before, after = ([shard.read_bytes() for shard in shard_paths(file)] for file in (path, later))
    assert before == after


def test_more_shards_than_open_files(tmp_path):
    code = f"""
import resource, numpy as np
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from brainmri.store.format import shard_name
from brainmri.store.reader import RadReader
from brainmri.store.writer import encode_shard, write_store
folder = Path({str(tmp_path)!r})
images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)
contents = [encode_shard(images[row : row + 1], "none") for row in range(300)]
names = [shard_name(content) for content in contents]
for name, content in zip(names, contents):
    (folder / f"{{name}}.h5").write_bytes(content)
write_store(folder / "rad/rad.h5", folder, names, [1] * 300, [0] * 300, 8, 2)
with RadReader(folder / "rad/rad.h5") as rad:
    assert (rad.images(range(300)) == images).all()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_open_file_limit_rises_only_for_many_shards(tmp_path):
    code = f"""
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
limits = (64, min(hard, 100) if hard > 0 else 100)
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
from pathlib import Path
from brainmri.store.reader import OpenShards
assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
OpenShards(Path({str(tmp_path)!r}), (8, 8, 1), dict.fromkeys(range(32), 1))
assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
OpenShards(Path({str(tmp_path)!r}), (8, 8, 1), dict.fromkeys(range(33), 1))
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(("classes", "kind"), [(256, np.uint8), (257, np.uint16)])
def test_label_type_fits_the_last_class(tmp_path, classes, kind):
    labels = [classes - 1 - row for row in range(70)]
    make_store(tmp_path / "rad.h5", labels=labels, classes=classes)
    with h5py.File(tmp_path / "rad.h5") as file:
        assert file["labels"].dtype == kind
        assert file["labels"][:3].tolist() == labels[:3]


def test_labels_of_many_classes_are_read(tmp_path):
    make_store(tmp_path / "rad.h5", labels=np.arange(70) * 5, classes=351)
    with RadReader(tmp_path / "rad.h5") as rad:
        np.testing.assert_array_equal(rad.labels, np.arange(70) * 5)


@pytest.mark.parametrize("rows", [[0], [5, 6, 7], [69, 0, 31, 32], [3, 3, 3], [], list(range(70))])
def test_images_come_in_the_requested_order(path, rows):
    with RadReader(path) as rad:
        np.testing.assert_array_equal(rad.images(rows), IMAGES[rows])


@pytest.mark.parametrize("rows", [[70], [-1], [0, 100]])
def test_missing_rows_are_refused(path, rows):
    with RadReader(path) as rad, pytest.raises(IndexError, match="rows 0 to 69"):
        rad.images(rows)


def test_batch_needs_no_further_memory(tmp_path):
    images = np.zeros((2000, 64, 64, 1), np.uint8)
    make_store(tmp_path / "rad.h5", images, np.zeros(2000, int))
    with RadReader(tmp_path / "rad.h5") as rad:
        tracemalloc.start()
        rad.images(range(0, 2000, 100))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < images.nbytes / 10


def random_batches(seed: int, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 70, 32) for _ in range(count)]


def test_threads_share_a_reader(path):
    batches = random_batches(1, 200)
    with RadReader(path) as rad, ThreadPoolExecutor(8) as pool:
        for rows, images in zip(batches, pool.map(rad.images, batches), strict=True):
            np.testing.assert_array_equal(images, IMAGES[rows])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_share_a_reader(path, start):
    batches = random_batches(2, 20)
    with RadReader(path) as rad, ProcessPoolExecutor(2, get_context(start)) as pool:
        rad.images([0])
        for rows, images in zip(batches, pool.map(rad.images, batches), strict=True):
            np.testing.assert_array_equal(images, IMAGES[rows])


def test_reader_closes_and_reopens_files(path):
    folder = str(path.parent / "shards")
    with RadReader(path) as rad:
        rad.images([0])
        assert folder in Path("/proc/self/maps").read_text()
    assert folder not in Path("/proc/self/maps").read_text()
    copy = pickle.loads(pickle.dumps(rad))  # noqa: S301
    np.testing.assert_array_equal(copy.images([4]), IMAGES[[4]])


@pytest.mark.parametrize("can_link", [True, False])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_repeated_shards_are_linked_or_copied(tmp_path, monkeypatch, can_link, compression):
    if not can_link:
        monkeypatch.setattr(os, "link", lambda *_: os.stat("/nowhere"))
    names = []
    for start, end in ((0, 3), (3, 10)):
        content = encode_shard(IMAGES[start:end], compression)
        names.append(shard_name(content))
        (tmp_path / f"{names[-1]}.h5").write_bytes(content)
    path = tmp_path / "rad/rad.h5"
    rows = [*range(3, 10), 0, 1, 2, *range(3, 10)]
    labels = [row % 5 for row in rows]
    write_store(path, tmp_path, [names[1], *names], [7, 3, 7], labels, 20, 5)
    with RadReader(path) as rad:
        np.testing.assert_array_equal(rad.images(range(17)), IMAGES[rows])
        assert rad.shape == (17, 20, 20, 1)
        assert rad.labels.tolist() == labels
    are_linked = [shard.samefile(tmp_path / shard.name) for shard in shard_paths(path)]
    assert are_linked == [can_link, can_link]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["images"], IMAGES[rows])
