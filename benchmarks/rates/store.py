"""Measure what the store costs as it grows, and how fast it is read: seconds, bytes, images/s.

    python -m benchmarks.rates.store          (where the pipeline has run)

The store is of 20,000 generated images of 128×128 pixels. Each `ingest` is a process of its own.
After each change it runs again without the store and the decode cache, to compare the bytes. The
last line printed is JSON.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.commands import compose, dvc, wall_time
from brainmri.common.paths import DECODE_CACHE, STORE
from brainmri.store.reader import RadReader
from tests.support.checkout import checkout

SIDE = 128  # height and width of the images, pixels
IMAGES = 20_000
CHANGED = 200
CLASSES = ("no", "yes")
BATCH_SIZE = 32
BATCHES = 400
READING_REPEATS = 5
ROWS_AT_A_TIME = 1000  # of the store, read in order
SOURCE = Path("images")
PIXELS = Path("pixels")  # all pixels of the store, for the memory map
NO_OUTPUT = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


def main() -> None:
    with RadReader() as rad:
        images = rad.images(range(len(rad)))[..., 0]
    templates = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE))) for image in images]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(checkout(Path(folder)))
        set_compression("none")
        metrics = measure(templates)
    print(json.dumps(metrics))


def measure(templates: list[np.ndarray]) -> dict[str, float]:
    """Measure everything, in the current folder, a checkout without images.

    Parameters
    ----------
    templates : list of ndarray of uint8, shape (SIDE, SIDE)
        See `write_images`.
    """
    metrics = measure_first_ingest(templates)
    metrics |= measure_changes(templates)
    metrics |= measure_reading()
    metrics |= measure_dvc(templates)
    metrics |= measure_gzip()
    metrics |= measure_twice_the_images(templates)
    return metrics


def measure_first_ingest(templates: list[np.ndarray]) -> dict[str, float]:
    """Measure `ingest` of all images, and of a tenth, from scratch; then once more, unchanged."""
    write_images(templates, 0, IMAGES // 10)
    _, peak_of_tenth = run_ingest()
    write_images(templates, IMAGES // 10, IMAGES)
    remove_store()
    full, peak = run_ingest()
    unchanged, _ = run_ingest()
    return {
        "peak of a tenth": peak_of_tenth,
        "full": full,
        "peak": peak,
        "nothing new": unchanged,
        "bytes": sum(store_files().values()),
    }


def measure_changes(templates: list[np.ndarray]) -> dict[str, float]:
    """Measure `ingest` after each change, and the bytes of files that it wrote.

    `differing` counts the files that differ from those of a store built from scratch.
    """
    numbers = range(IMAGES, IMAGES + CHANGED)

    def add_scattered() -> None:
        for number in range(0, IMAGES, IMAGES // CHANGED):
            write_images(templates, number, number + 1, "b")

    def relabel() -> None:
        for number in numbers:
            image_path(number).rename(image_path(number, is_relabeled=True))

    def remove() -> None:
        for number in numbers:
            image_path(number, is_relabeled=True).unlink()

    changes = {
        "added": lambda: write_images(templates, IMAGES, IMAGES + CHANGED),
        "relabeled": relabel,
        "removed": remove,
        "scattered": add_scattered,
    }
    metrics = {}
    differing = 0
    for name, change in changes.items():
        before = store_files()
        change()
        metrics[name], _ = run_ingest()
        after = store_files()
        metrics[f"bytes {name}"] = sum(size for file, size in after.items() if file not in before)
        remove_store()
        run_ingest()
        differing += len(after.keys() ^ store_files().keys())
    return {**metrics, "differing": differing}


def measure_reading() -> dict[str, float]:
    """Measure random reads of the store, and of a memory map of the same pixels."""
    with RadReader() as rad:
        rates = [random_read_rates(rad.shape) for _ in range(READING_REPEATS)]
    return {
        "random": statistics.median(store_rate for store_rate, _ in rates),
        "memory map": statistics.median(map_rate for _, map_rate in rates),
        "random against memory map": statistics.median(
            store_rate / map_rate for store_rate, map_rate in rates
        ),
    }


def measure_dvc(templates: list[np.ndarray]) -> dict[str, float]:
    """Measure `dvc repro ingest`, from scratch and after images were added, and DVC's cache."""
    remove_store()
    Path("dvc.lock").unlink(missing_ok=True)
    full = wall_time(lambda: dvc(Path.cwd(), "repro", "ingest"))
    cache_bytes = dvc_cache_bytes()
    write_images(templates, IMAGES, IMAGES + CHANGED)
    added = wall_time(lambda: dvc(Path.cwd(), "repro", "ingest"))
    return {
        "dvc, full": full,
        "cache": cache_bytes,
        "dvc, added": added,
        "cache added": dvc_cache_bytes() - cache_bytes,
    }


def measure_gzip() -> dict[str, float]:
    """Measure `ingest`, the store and random reads with compression."""
    set_compression("gzip")
    remove_store()
    full, _ = run_ingest()
    store_bytes = sum(store_files().values())
    rate, _ = random_read_rates((len(RadReader()), SIDE, SIDE, 1))
    return {"full, gzip": full, "bytes, gzip": store_bytes, "random, gzip": rate}


def measure_twice_the_images(templates: list[np.ndarray]) -> dict[str, float]:
    """Measure `ingest` of twice as many images from scratch."""
    set_compression("none")
    write_images(templates, IMAGES + CHANGED, 2 * IMAGES)
    remove_store()
    full, _ = run_ingest()
    return {"full, twice the images": full}


def set_compression(compression: str) -> None:
    """Set the parameters of the store to measure."""
    SOURCE.mkdir(exist_ok=True)
    params = {
        "data.source": SOURCE,
        "ingest.image_size": SIDE,
        "ingest.crop": "false",
        "ingest.compression": compression,
    }
    compose(Path.cwd(), params)


def write_images(templates: list[np.ndarray], start: int, end: int, suffix: str = "") -> None:
    """Write images that resemble the templates and all differ: noise of a few gray levels is added.

    Parameters
    ----------
    templates : list of ndarray of uint8, shape (SIDE, SIDE)
    start, end : int
        Numbers of the images.
    suffix : str
        Of their names.
    """
    for number in range(start, end):
        rng = np.random.default_rng([number, len(suffix)])
        noise = rng.integers(-6, 7, (SIDE, SIDE), dtype=np.int16)
        pixels = np.clip(templates[number % len(templates)] + noise, 0, 255).astype(np.uint8)
        path = image_path(number, suffix=suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)


def image_path(number: int, is_relabeled: bool = False, suffix: str = "") -> Path:
    """Return the path of an image: even numbers are of the first class, unless relabeled."""
    return SOURCE / CLASSES[(number % 2) ^ is_relabeled] / f"{number:05}{suffix}.jpg"


def run_ingest() -> tuple[float, float]:
    """Run `ingest`; return its wall time, in seconds, and its peak memory, in MiB."""
    command = [sys.executable, "-m", "stages", "ingest"]
    start = time.perf_counter()
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=NO_OUTPUT)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit("error: ingest failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def remove_store() -> None:
    """Remove the store and the decode cache."""
    for folder in (STORE, DECODE_CACHE):
        shutil.rmtree(folder, ignore_errors=True)


def store_files() -> dict[str, int]:
    """Return the size of each file of the store, in bytes, by its path and SHA-256."""
    sizes = {}
    for file in STORE.rglob("*"):
        if file.is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            sizes[f"{file} {digest}"] = file.stat().st_size
    return sizes


def dvc_cache_bytes() -> int:
    """Return the size of DVC's cache, in bytes."""
    files = [path for path in Path(".dvc/cache/files").rglob("*") if path.is_file()]
    return sum(file.stat().st_size for file in files)


def random_read_rates(shape: tuple[int, ...]) -> tuple[float, float]:
    """Measure the images per second of two processes that read random batches.

    Parameters
    ----------
    shape : tuple of int
        Of the store's images.

    Returns
    -------
    store, memory_map : float
        Rates of the store, and of a memory map of the same pixels.
    """
    if not PIXELS.exists() or PIXELS.stat().st_size != np.prod(shape):
        write_pixels(shape[0])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        store, memory_map = (
            sum(pool.map(read_randomly, [(kind, shape, seed) for seed in (1, 2)], 1))
            for kind in ("store", "map")
        )
    return store, memory_map


def write_pixels(images: int) -> None:
    """Write the pixels of this number of images to one file."""
    with RadReader() as rad, PIXELS.open("wb") as file:
        for start in range(0, images, ROWS_AT_A_TIME):
            file.write(rad.images(range(start, min(start + ROWS_AT_A_TIME, images))))


def read_randomly(task: tuple[str, tuple[int, ...], int]) -> float:
    """Measure the images per second of one process.

    Every page is read once before.

    Parameters
    ----------
    task : tuple of (kind, shape, seed)
        What to read, "store" or "map"; the shape of its images; the seed of the rows.
    """
    kind, shape, seed = task
    if kind == "store":
        read = RadReader().images
    else:
        read = np.memmap(PIXELS, np.uint8, "r", shape=shape).__getitem__
    batches = np.random.default_rng(seed).integers(0, shape[0], (BATCHES, BATCH_SIZE))
    for start in range(0, shape[0], ROWS_AT_A_TIME):
        read(np.arange(start, min(start + ROWS_AT_A_TIME, shape[0])))
    start = time.perf_counter()
    for batch in batches:
        read(batch)
    return BATCHES * BATCH_SIZE / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
