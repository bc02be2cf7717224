"""Draw docs/architecture.svg: the stages, and one image's way through the packages.

python -m docs.make_architecture
"""

import base64
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from brainmri.common.files import write_bytes
from brainmri.images.decoding import decode
from brainmri.images.phantoms import draw_phantom, to_png

FIGURE = Path("docs/architecture.svg")
IMAGE_SIZE = 160  # of a stored image, as by default
STEPS = (  # stage; package; what happens to the image; what it is afterward
    ("", "", ("one image file of class “yes”",), "data/phantom/yes/yes-000.png"),
    (
        "ingest",
        "brainmri/images",
        ("decoded, cropped to the head, padded to a square,", "resized to gray levels; hashed"),
        "",
    ),
    (
        "ingest",
        "brainmri/store",
        ("one row of a shard, which is named by its content", ""),
        "data/rad/",
    ),
    (
        "split",
        "brainmri/sampling",
        ("joined with near duplicates and slices of its patient;", "the group is in one fold"),
        "data/split.json",
    ),
    (
        "bootstrap-sample",
        "brainmri/sampling",
        ("for each member: used to train it (in-bag),", "or held out (out-of-bag)"),
        "data/bootstrap/",
    ),
    (
        "fan-out, train@member-NN",
        "brainmri/training, brainmri/parallel",
        ("in-bag: augmented, in a batch; out-of-bag or test:", "predicted by the trained member"),
        "models/members/",
    ),
    (
        "weigh, evaluate",
        "brainmri/evaluation",
        ("out-of-bag votes fit weights, calibration, threshold;", "test votes are scored once"),
        "metrics/ensemble.json",
    ),
    (
        "export, explain, report",
        "brainmri/models, brainmri/report",
        ("members and weights become one model, which", "draws the evidence in test images"),
        "models/ensemble.keras",
    ),
    (
        "",
        "brainmri/predict, brainmri/app",
        ("a new image is decoded in the same way, and predicted:", "class, probability, novelty"),
        "",
    ),
)
WIDTH, ROW, TOP, GAP = 900, 58, 50, 22
LEFT, BOX, RIGHT = 190, 430, 650
STYLE = """
text { font-family: system-ui, sans-serif; font-size: 14px; fill: #1f2933; }
.head { font-weight: 600; fill: #52606d; }
.package, .file { font-family: ui-monospace, monospace; font-size: 13px; }
.package { font-weight: 600; fill: #1d4e89; }
.box { fill: #eef4fb; stroke: #1d4e89; }
.arrow { stroke: #52606d; stroke-width: 1.5; fill: none; marker-end: url(#head); }
"""


def main() -> None:
    write_bytes(FIGURE, draw().encode())


def draw() -> str:
    """Draw the figure, as SVG."""
    height = TOP + len(STEPS) * (ROW + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>One image's way through the packages</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4"'
        ' orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#52606d"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(20, 28, "stage", "head"),
        _text(LEFT, 28, "package, and what happens to the image", "head"),
        _text(RIGHT + 20, 28, "what it becomes", "head"),
    ]
    for number, step in enumerate(STEPS):
        parts += _draw_step(TOP + number * (ROW + GAP), *step, is_last=number == len(STEPS) - 1)
    phantom = to_png(draw_phantom("yes", 0, 0).image)
    parts.append(_image(LEFT + BOX - 72, TOP + 5, phantom))
    parts.append(_image(RIGHT + 20, TOP + ROW + GAP + 5, _stored(phantom)))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw_step(
    y: int, stage: str, package: str, lines: tuple[str, ...], file: str, is_last: bool
) -> list[str]:
    lines = [line for line in (package, *lines) if line]
    parts = [f'<rect class="box" x="{LEFT}" y="{y}" width="{BOX}" height="{ROW}" rx="5"/>']
    first = y + ROW / 2 + 5 - 9 * (len(lines) - 1)
    for number, line in enumerate(lines):
        name = "package" if line == package else ""
        parts.append(_text(LEFT + 12, first + 18 * number, line, name))
    for number, name in enumerate(stage.split(", ") if stage else []):
        parts.append(_text(20, y + ROW / 2 + 5 + 18 * number - 9 * stage.count(", "), name))
    if file:
        parts.append(_text(RIGHT + 20, y + ROW / 2 + 5, file, "file"))
        if stage:
            parts.append(_arrow(LEFT + BOX, y + ROW / 2, RIGHT + 12, y + ROW / 2))
    if not is_last:
        parts.append(_arrow(LEFT + BOX / 2, y + ROW, LEFT + BOX / 2, y + ROW + GAP - 1))
    return parts


def _text(x: float, y: float, text: str, name: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{name}">{escape(text)}</text>'


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path class="arrow" d="M{x:g} {y:g} L{to_x:g} {to_y:g}"/>'


def _image(x: float, y: float, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<image x="{x}" y="{y}" height="{ROW - 10}" href="data:image/png;base64,{data}"/>'


def _stored(png: bytes) -> bytes:
    """Decode a file as `ingest` does, and encode the pixels that it stores as PNG."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "slice.png"
        file.write_bytes(png)
        return to_png(decode(file, IMAGE_SIZE, crop=True).pixels)


if __name__ == "__main__":
    main()
