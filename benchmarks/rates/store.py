"""What the store costs as it grows, on 20,000 made images of 128×128 pixels: seconds, bytes, images per second, as JSON.

    python -m benchmarks.rates.store          (where the pipeline has run)

`ingest` runs as a program of its own each time, and again without its memory of earlier runs, to compare the bytes.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.run import checkout, compose, dvc, timed
from stages.shared.rad import RadReader

SIDE, IMAGES, CHANGED, BATCH, BATCHES = 128, 20_000, 200, 32, 400
CLASSES = ("no", "yes")


def main() -> None:
    with RadReader() as rad:
        drawn = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE))) for image in rad.images(range(len(rad)))[..., 0]]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(checkout(Path(folder)))
        store_with("none")
        found = measure(lambda start, end, tail="": draw(drawn, start, end, tail))
    print(json.dumps(found))


def measure(add: Callable[..., None]) -> dict[str, float]:
    """Everything that is measured, in the current folder, a checkout without images.

    Parameters
    ----------
    add : callable
        Draws the images of the given numbers; their names are the numbers, and a tail.
    """
    found: dict[str, float] = {}
    add(0, IMAGES // 10)
    _, found["peak of a tenth"] = ingest()
    add(IMAGES // 10, IMAGES)
    forget()
    found["full"], found["peak"] = ingest()
    found["nothing new"], _ = ingest()
    found["bytes"] = sum(contents().values())

    differing = 0
    numbers = range(IMAGES, IMAGES + CHANGED)
    scattered = range(0, IMAGES, IMAGES // CHANGED)
    for name, change in {
        "added": lambda: add(IMAGES, IMAGES + CHANGED),
        "relabelled": lambda: [file_of(number).rename(file_of(number, 1)) for number in numbers],
        "removed": lambda: [file_of(number, 1).unlink() for number in numbers],
        "scattered": lambda: [add(number, number + 1, "b") for number in scattered],
    }.items():
        before = contents()
        change()
        found[name], _ = ingest()
        grown = contents()
        found[f"bytes {name}"] = sum(size for file, size in grown.items() if file not in before)
        forget()
        ingest()
        differing += len(grown.keys() ^ contents().keys())
    found["differing"] = differing

    with RadReader() as rad:
        rates = [both_rates(rad.shape) for _ in range(5)]
    found["random"], found["memory map"] = (statistics.median(rate[key] for rate in rates) for key in (0, 1))
    found["random against memory map"] = statistics.median(ours / theirs for ours, theirs in rates)

    with_dvc(found, lambda: add(IMAGES, IMAGES + CHANGED))

    store_with("gzip")
    forget()
    found["full, gzip"], _ = ingest()
    found["bytes, gzip"] = sum(contents().values())
    found["random, gzip"] = both_rates((len(RadReader()), SIDE, SIDE, 1))[0]

    store_with("none")
    add(IMAGES + CHANGED, 2 * IMAGES)
    forget()
    found["full, twice the images"], _ = ingest()
    return found


def store_with(compression: str) -> None:
    Path("images").mkdir(exist_ok=True)
    wanted = {"data.source": "images", "ingest.image_size": SIDE, "ingest.crop": "false", "ingest.compression": compression}
    compose(Path.cwd(), wanted)


def with_dvc(found: dict[str, float], change: Callable[[], None]) -> None:
    """The same by DVC: `dvc repro ingest` from nothing and after a change, and the bytes in its cache."""
    forget()
    Path("dvc.lock").unlink(missing_ok=True)
    found["dvc, full"] = timed(lambda: dvc(Path.cwd(), "repro", "ingest"))
    found["cache"] = cached()
    change()
    found["dvc, added"] = timed(lambda: dvc(Path.cwd(), "repro", "ingest"))
    found["cache added"] = cached() - found["cache"]


def cached() -> int:
    """Bytes in DVC's cache."""
    return sum(file.stat().st_size for file in Path(".dvc/cache/files").rglob("*") if file.is_file())


def draw(drawn: list[np.ndarray], start: int, end: int, tail: str) -> None:
    """Make images that look like the given ones and are all different: noise of a few grey levels is added to them."""
    for number in range(start, end):
        noise = np.random.default_rng([number, len(tail)]).integers(-6, 7, (SIDE, SIDE), dtype=np.int16)
        file = file_of(number, tail=tail)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(drawn[number % len(drawn)] + noise, 0, 255).astype(np.uint8)).save(file, quality=90)


def file_of(number: int, label: int = 0, tail: str = "") -> Path:
    """The first half of the numbers, and the added ones that follow on, lie in the first class."""
    return Path("images") / CLASSES[(number % 2) ^ label] / f"{number:05}{tail}.jpg"


def ingest() -> tuple[float, float]:
    """Seconds that it took, and the most memory that it held, MiB."""
    start = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, "-m", "stages.ingest"], os.environ, file_actions=quiet())
    _, status, used = os.wait4(process, 0)
    if status:
        sys.exit("error: ingest failed")
    return time.perf_counter() - start, used.ru_maxrss / 1024


def quiet() -> list[tuple]:
    return [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


def forget() -> None:
    """Remove the store and what `ingest` remembers."""
    for folder in ("data/rad", ".dvc/tmp/ingest"):
        shutil.rmtree(folder, ignore_errors=True)


def contents() -> dict[str, int]:
    """The bytes of each file of the store, by path and hash for the doors, by name for the shards."""
    return {
        f"{file} {hashlib.sha256(file.read_bytes()).hexdigest()}": file.stat().st_size
        for file in Path("data/rad").rglob("*")
        if file.is_file()
    }


def both_rates(shape: tuple[int, ...]) -> tuple[float, float]:
    """Images per second of two processes that read random batches: of the store, and of a memory map of the same pixels."""
    plain = Path("pixels")
    if not plain.exists() or plain.stat().st_size != np.prod(shape):
        with RadReader() as rad, plain.open("wb") as file:
            for start in range(0, shape[0], 1000):
                file.write(rad.images(range(start, min(start + 1000, shape[0]))))
    fork = multiprocessing.get_context("fork")
    with fork.Pool(2) as pool:
        return tuple(sum(pool.map(read_at_random, [(kind, shape, seed) for seed in (1, 2)], 1)) for kind in ("store", "map"))


def read_at_random(task: tuple[str, tuple[int, ...], int]) -> float:
    """Images per second of one process; every page was read once before."""
    kind, shape, seed = task
    read = RadReader().images if kind == "store" else np.memmap("pixels", np.uint8, "r", shape=shape).__getitem__
    batches = np.random.default_rng(seed).integers(0, shape[0], (BATCHES, BATCH))
    for start in range(0, shape[0], 1000):
        read(np.arange(start, min(start + 1000, shape[0])))
    start = time.perf_counter()
    for batch in batches:
        read(batch)
    return BATCHES * BATCH / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
