"""Small files that would take seconds or gigabytes to decode are refused at once, with a reason."""

import io
import json
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from brainmri.images import limits
from brainmri.images.decoding import decode
from brainmri.images.intensity import rescale_intensity
from brainmri.images.limits import ImageError, check_scans
from tests.support.checkout import ROOT
from tests.support.image_files import GRAY_RAMP, SLICES

EXIF = b"Exif\0\0"
# Decode files; print of each the reason, the CPU's seconds, and the MiB by which the peak rose
SCRIPT = """
import json, sys, time
from pathlib import Path
from brainmri.images.decoding import decode
from brainmri.images.intensity import rescale_intensity
from brainmri.images.limits import ImageError
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024
for path in sorted(Path(sys.argv[1]).iterdir()):
    before, start = peak(), time.process_time()
    try:
        decode(path, 64)
        reason = "read"
    except ImageError as error:
        reason = str(error)
    print(json.dumps([path.name, [reason, time.process_time() - start, peak() - before]]))
"""


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encode_jpeg(scans: int = 0, after_start: bytes = b"") -> bytes:
    """Encode a progressive JPEG, its last scan repeated so often, and segments at its start."""
    content = encode(Image.fromarray(GRAY_RAMP).resize((512, 512)), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:2] + after_start + content[2:-2] + scans * last + content[-2:]


def jpeg_segment(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def encode_png(*chunks: bytes) -> bytes:
    """Encode a PNG with chunks before its pixels."""
    content = encode(Image.fromarray(GRAY_RAMP), "PNG")
    return content[:33] + b"".join(chunks) + content[33:]


def directory(tags: list[tuple[int, int, int, int]], next_page: int = 0) -> bytes:
    """Encode tags of TIFF: number, type of value, count, and the value or where it is."""
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    return struct.pack("<H", len(tags)) + entries + struct.pack("<L", next_page)


def encode_tiff(*tags: tuple[int, int, int, int], data: bytes = bytes(4096)) -> bytes:
    """Encode a gray TIFF of 64×64 pixels, with further tags."""
    own = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    return b"II*\0" + struct.pack("<L", 8 + len(data)) + data + directory(sorted([*own, *tags]))


def tags_that_share(size: int) -> bytes:
    """Encode a directory, after a header, of 60,000 tags that have the same values."""
    tags = [(1000 + number, 7, size, 8) for number in range(60_000)]
    return b"II*\0" + struct.pack("<L", 8 + size) + bytes(size) + directory(tags)


def encode_pages(count: int) -> bytes:
    size = len(directory([(256, 3, 1, 64)]))
    pages = [directory([(256, 3, 1, 64)], 8 + (number + 1) * size) for number in range(count)]
    return b"II*\0" + struct.pack("<L", 8) + b"".join(pages)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<L", len(data)) + data for kind, data in chunks)
    return b"RIFF" + struct.pack("<L", 4 + len(body)) + b"WEBP" + body


def encode_webp(width: int, height: int) -> bytes:
    """Encode a lossless WebP of one color: the start of its bits will do."""
    bits = (width - 1) | (height - 1) << 14
    return riff((b"VP8L", b"\x2f" + struct.pack("<L", bits) + bytes(9)))


def encode_canvas(width: int, height: int) -> bytes:
    sides = struct.pack("<L", width - 1)[:3] + struct.pack("<L", height - 1)[:3]
    return riff((b"VP8X", bytes(4) + sides))


def encode_webp_of_exif(block: bytes) -> bytes:
    return encode(Image.fromarray(GRAY_RAMP).convert("RGB"), "WEBP", exif=EXIF + block)


def encode_rle(width: int, height: int, runs: bytes) -> bytes:
    """Encode a BMP of runs."""
    start = 14 + 40 + 1024
    header = struct.pack("<LllHHLLllLL", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    palette = b"".join(bytes([level] * 3) + b"\0" for level in range(256))
    size = start + len(runs)
    return b"BM" + struct.pack("<LHHL", size, 0, 0, start) + header + palette + runs


GIF = encode(Image.fromarray(GRAY_RAMP), "GIF")
GIF_FRAME = GIF[GIF.index(b",") : -1]
SHARING = tags_that_share(2**20)
HOSTILE = {
    "scans.jpg": (encode_jpeg(1000), "scans or more in a progressive JPEG; at most 100"),
    "segments.jpg": (encode_jpeg(0, 10_001 * jpeg_segment(0xFE, b"")), "10,000 segments"),
    "junk.jpg": (encode_jpeg(0, bytes(2**21)), "1,048,576 bytes between the segments"),
    "exif.jpg": (
        encode_jpeg(
            0,
            b"".join(
                jpeg_segment(0xE1, EXIF + SHARING[start : start + 65_000])
                for start in range(0, len(SHARING), 65_000)
            ),
        ),
        "share their values",
    ),
    "exif.png": (encode_png(chunk(b"eXIf", SHARING)), "share their values"),
    "exif prefixes.png": (encode_png(chunk(b"eXIf", 400_000 * EXIF)), "EXIF data are broken"),
    "chunks.png": (encode_png(200_000 * chunk(b"tEXt")), "200,000 chunks"),
    "exif.webp": (encode_webp_of_exif(SHARING), "share their values"),
    "tile.tiff": (
        encode_tiff((322, 4, 1, 30_000), (323, 4, 1, 30_000), (324, 4, 1, 8), (325, 4, 1, 4096)),
        "tiles of 30000×30000 pixels in an image of 64×64",
    ),
    "pages.tiff": (encode_pages(50_000), "more than 100 pages"),
    "tags.tiff": (SHARING, "share their values"),
    "values.tiff": (encode_tiff((273, 4, 500_000, 8), data=bytes(2_000_000)), "500,000 values"),
    "canvas.webp": (encode_canvas(16_383, 16_383), "at most 100,000,000"),
    "bits.webp": (encode_webp(16_383, 16_383), "at most 100,000,000"),
    "lossy.webp": (
        riff((b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383))),
        "at most 100,000,000",
    ),
    "pixels.bmp": (encode_rle(5000, 5000, b"\xff\x50" * 98_100), "run-length encoded; at most"),
    "bytes.bmp": (encode_rle(64, 64, bytes(2**20)), "bytes of runs for 64×64 pixels"),
    "frames.gif": (GIF[:-1] + 3000 * GIF_FRAME + b";", "2 frames or more"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, list]:
    """Return reason, seconds and MiB of each file."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (content, _) in HOSTILE.items():
        (folder / name).write_bytes(content)
    (folder / " first.png").write_bytes(encode_png())  # which takes what is taken only once
    command = [sys.executable, "-c", SCRIPT, folder]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return dict(map(json.loads, printed.splitlines()))


@pytest.mark.parametrize("name", HOSTILE)
def test_small_files_that_take_much_are_refused_at_once(outcomes, name):
    reason, seconds, grown = outcomes[name]
    assert re.search(HOSTILE[name][1], reason)
    assert "\n" not in reason
    assert seconds < 1
    assert grown < 64
    assert len(HOSTILE[name][0]) < 4 * 2**20


def test_files_at_the_limits_are_read(tmp_path):
    files = {
        "scans.jpg": encode_jpeg(limits.MAX_SCANS - 6),
        "segments.jpg": encode_jpeg(0, 9_900 * jpeg_segment(0xFE, b"")),
        "marker.jpg": encode_jpeg(0, jpeg_segment(0xE5, 1000 * b"\xff\xda\xff\xd9")),
        "chunks.png": encode_png(1000 * chunk(b"prVt")),
        "runs.bmp": encode_rle(
            64, 64, 64 * (b"".join(b"\1" + bytes([4 * x]) for x in range(64)) + b"\0\0")
        ),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert decode(tmp_path / name, 64).pixels.std() > 10


def test_tiles_may_be_larger_than_a_small_image(tmp_path):
    tags = (322, 4, 1, 128), (323, 4, 1, 128), (324, 4, 1, 8), (325, 4, 1, 128 * 128)
    tile = np.resize(np.arange(128, dtype=np.uint8), (128, 128))
    (tmp_path / "tile.tiff").write_bytes(encode_tiff(*tags, data=tile.tobytes()))
    np.testing.assert_array_equal(decode(tmp_path / "tile.tiff", 64).pixels, tile[:64, :64])


def test_scans_are_bounded_by_their_pixels(monkeypatch):
    content = encode_jpeg(14)  # 20 scans
    monkeypatch.setattr(limits, "MAX_SCANNED_PIXELS", 20 * 512**2)
    check_scans(content)
    monkeypatch.setattr(limits, "MAX_SCANNED_PIXELS", 20 * 512**2 - 1)
    with pytest.raises(ImageError, match="20 scans"):
        check_scans(content)


@pytest.mark.parametrize("fraction", [0.2, 0.5])
@pytest.mark.parametrize("quality", [50, 75])
@pytest.mark.parametrize("side", [256, 512])
def test_jpeg_whose_end_is_zeros_is_refused(side, quality, fraction, tmp_path):
    """Without the check, it is read, with a flat lower part."""
    image = Image.fromarray(SLICES[0]).resize((side, side))
    content = encode(image, "JPEG", quality=quality, optimize=True)
    count = int(fraction * len(content))
    (tmp_path / "image.jpg").write_bytes(content[:-count] + bytes(count))
    with pytest.raises(ImageError, match="zeros replace its end, as of an unfinished download"):
        decode(tmp_path / "image.jpg", 64)
    (tmp_path / "image.jpg").write_bytes(content + bytes(count))
    assert decode(tmp_path / "image.jpg", 64).pixels.std() > 10


def test_longest_end_of_zeros_that_is_left_to_the_decoder():
    content = encode_jpeg()[:-2].rstrip(b"\0")
    check_scans(content + bytes(limits.MAX_ZEROS))
    with pytest.raises(ImageError, match="download or copy it again"):
        check_scans(content + bytes(limits.MAX_ZEROS + 1))


def test_page_after_the_first_is_checked_too(tmp_path):
    """A preview comes first; the tiles of the page that is read are too large."""
    first = directory(
        [
            (254, 4, 1, 1),
            (256, 3, 1, 8),
            (257, 3, 1, 8),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, 1, 8),
            (279, 4, 1, 64),
        ]
    )
    tiled = encode_tiff(
        (254, 4, 1, 0), (322, 4, 1, 30_000), (323, 4, 1, 30_000), (324, 4, 1, 8), (325, 4, 1, 64)
    )
    (start,) = struct.unpack("<L", tiled[4:8])
    first = first[:-4] + struct.pack("<L", start)
    content = tiled[:4] + struct.pack("<L", len(tiled)) + tiled[8:] + first
    (tmp_path / "pages.tiff").write_bytes(content)
    with pytest.raises(ImageError, match="tiles of 30000×30000"):
        decode(tmp_path / "pages.tiff", 64)


def test_deep_images_are_not_copied_as_64_bits():
    levels = np.resize(np.arange(3000, dtype=np.uint16), (3000, 3000))
    tracemalloc.start()
    rescale_intensity(levels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * levels.size


def test_common_size_of_webp_is_known():
    assert limits.webp_size(encode_webp_of_exif(bytes(99))) == (64, 64)
    for options in ({}, {"lossless": True}):
        content = encode(Image.new("RGB", (300, 200)), "WEBP", **options)
        assert limits.webp_size(content) == (300, 200)
    assert limits.webp_size(GIF) is None
