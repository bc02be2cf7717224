"""Measure time and memory of grouping near duplicates, and how they grow with the images.

    python -m benchmarks.grouping

Hashes are made of those of synthetic slices; each set is grouped in a process of its own. Peak
memory includes Python and NumPy. The slope is that of log seconds over log images, from the row
above: 2 where all pairs are compared.
"""

import math
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.commands import wall_time
from brainmri.images.cropping import head_box
from brainmri.images.hashing import perceptual_hashes
from brainmri.images.phantoms import KINDS, draw_phantom
from brainmri.sampling.groups import decode_hashes, near_duplicate_groups

SLICES = 1000  # of which the hashes are computed
IMAGES = (20_000, 40_000, 100_000)
BITS = 20
FLIPS = (0.01, 0.03, 0.1)  # probabilities that a bit of an image is flipped
KIBIBYTES_PER_MIB = 2**10


def main() -> None:
    slices = slice_hashes()
    print(f"{'hashes':<10}{'images':>9}{'groups':>9}{'seconds':>9}{'peak MiB':>10}{'slope':>7}")
    for name, draw in (("mixed", mix_hashes), ("one group", vary_hash)):
        previous = None
        for images in IMAGES:
            hashes = draw(slices, images, np.random.default_rng(0))
            groups, seconds, peak = in_new_process(hashes)
            row = f"{name:<10}{images:>9,}{groups:>9,}{seconds:>9.1f}{peak:>10.0f}"
            if previous:
                slope = math.log(seconds / previous[1]) / math.log(images / previous[0])
                row += f"{slope:>7.2f}"
            print(row, flush=True)
            previous = images, seconds


def slice_hashes() -> np.ndarray:
    """Compute the hashes of synthetic slices of all kinds, uint8, shape (slices, 4, 32)."""
    hashes = []
    for index in range(SLICES):
        slice_ = draw_phantom(KINDS[index % len(KINDS)], index, 0)
        gray = Image.fromarray(slice_.image)
        hashes.append(perceptual_hashes(gray, head_box(gray)))
    return decode_hashes(hashes)


def mix_hashes(slices: np.ndarray, images: int, rng: np.random.Generator) -> np.ndarray:
    """Draw hashes that resemble those of real images.

    Each has the upper bits of a slice and the lower bits of another, some of them flipped. Every
    tenth image is a copy of the one before it, of which 2 % of the bits differ.
    """
    bits = np.unpackbits(slices, axis=-1)
    upper, lower = rng.integers(len(slices), size=(2, images))
    is_upper = np.arange(256) < rng.integers(256, size=(images, 1, 1))
    mixed = np.where(is_upper, bits[upper], bits[lower])
    mixed ^= rng.random(mixed.shape, np.float32) < rng.choice(FLIPS, (images, 1, 1))
    copies = mixed[9::10]
    copies[:] = mixed[8::10] ^ (rng.random(copies.shape, np.float32) < 0.02)
    return np.packbits(mixed, axis=-1)


def vary_hash(slices: np.ndarray, images: int, rng: np.random.Generator) -> np.ndarray:
    """Draw hashes that are all near duplicates: those of a slice, with few bits flipped."""
    bits = np.unpackbits(slices[:1], axis=-1).repeat(images, axis=0)
    flipped = rng.integers(256, size=(images, 4, BITS // 2))
    np.put_along_axis(bits, flipped, rng.integers(2, size=flipped.shape, dtype=np.uint8), axis=-1)
    return np.packbits(bits, axis=-1)


def in_new_process(hashes: np.ndarray) -> tuple[int, float, float]:
    """Call `measure` in a new process, so that its peak memory is that of this call."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measure, hashes).result()


def measure(hashes: np.ndarray) -> tuple[int, float, float]:
    """Group hashes; return the number of groups, seconds, and the process's peak memory in MiB."""
    groups = []
    seconds = wall_time(lambda: groups.extend(near_duplicate_groups(hashes, BITS)))
    # `getrusage` would include the memory of the process that started this one
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / KIBIBYTES_PER_MIB
    return max(groups) + 1, seconds, peak


if __name__ == "__main__":
    main()
