"""The disk store: written in batches, read by index from threads and processes, refused when it is damaged."""

import pickle
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import h5py
import numpy as np
import pytest

from stages.shared.errors import UserError
from stages.shared.rad import RadReader, write_rad

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 20, 20, 1), np.uint8)
LABELS = np.arange(70) % 3


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "rad.h5")
    return tmp_path / "rad.h5"


def write(path, images=IMAGES, labels=LABELS, classes=3):
    batches = [(images[start : start + 32], labels[start : start + 32]) for start in range(0, len(images), 32)]
    write_rad(path, batches, images.shape[1], classes)


def test_layout_is_the_documented_one(path):
    with h5py.File(path) as file:
        assert (file["images"].dtype, file["images"].shape, file["images"].maxshape) == (
            np.uint8,
            IMAGES.shape,
            (None, 20, 20, 1),
        )
        assert file["images"].chunks
        assert file["labels"].dtype == np.uint8
        np.testing.assert_array_equal(file["labels"], LABELS)


def test_many_classes_have_wider_labels(tmp_path):
    write(tmp_path / "rad.h5", labels=np.arange(70) * 5, classes=351)
    with RadReader(tmp_path / "rad.h5") as rad:
        assert rad.labels.max() == 345


def test_equal_content_gives_equal_bytes_at_another_time(tmp_path, path):
    time.sleep(1.1)
    write(tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()


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


def test_reader_closes_its_file(path):
    with RadReader(path) as rad:
        file = next(iter(rad._files.values()))
        assert file
    assert not file
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rad)).images([4]), IMAGES[[4]])  # noqa: S301


def test_damaged_files_are_refused_in_one_line(tmp_path, path):
    (tmp_path / "half.h5").write_bytes(path.read_bytes()[:5000])
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros((3, 4))
    with h5py.File(tmp_path / "objects.h5", "w") as file:
        file["images"] = IMAGES
        file.create_dataset("labels", (70,), h5py.string_dtype())
    for name in ("half", "text", "other", "objects", "missing"):
        with pytest.raises(UserError, match=f"{name}.h5.*dvc repro"):
            RadReader(tmp_path / f"{name}.h5")


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
    for name, make in makers.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            make(file)
            file["labels"] = LABELS.astype(np.uint8)
        with pytest.raises(UserError, match="lacks `images`"):
            RadReader(tmp_path / f"{name}.h5")
