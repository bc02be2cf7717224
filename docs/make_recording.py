"""Record the live table of the members in a real `dvc repro`, as an animated SVG.

    python -m docs.make_recording

The pipeline runs on the built-in images in a new clone, in a terminal of its own. Its members have
frozen networks, so that they train in seconds; what precedes their training has run before.

Writes  docs/recording.svg
"""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from html import escape
from itertools import groupby, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyte
import yaml

from brainmri.common.files import write_bytes
from brainmri.common.params import EditableParams, derive_ensemble

FIGURE = Path("docs/recording.svg")
COMMAND = "dvc repro"
PRESET, MEMBERS = "frozen", 7
COLUMNS, LINES = 88, 20
FRAME_S = 0.5  # shortest time that a screen is recorded for
MAX_FRAME_S = 1.5  # longest time
PLAYED_S = 20.0
LAST_FRAME_S = 4.0  # for which the end is shown
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 18, 14
COLORS = {
    "default": "#d5dbe3",
    "red": "#ff7b72",
    "green": "#7ee787",
    "brown": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#76e3ea",
    "white": "#f0f6fc",
    "black": "#6e7681",
}
STYLE = """
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre; fill: #d5dbe3; }
.bold { font-weight: 700; }
.film { animation: film DURATIONs step-end infinite; }
@media (prefers-reduced-motion: reduce) { .film { animation: none; transform: LAST; } }
"""


class Span(NamedTuple):
    """Characters of one color in a line of the terminal."""

    column: int
    text: str
    color: str
    is_bold: bool


Line = tuple[Span, ...]
Screen = tuple[Line, ...]


def main() -> None:
    with TemporaryDirectory() as folder:
        clone = make_clone(Path(folder))
        frames = record(clone)
    write_bytes(FIGURE, draw(frames).encode())


def make_clone(folder: Path) -> Path:
    """Clone the project, configured as by `make`, and run what precedes the training."""
    clone = folder / "brain-mri"
    subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
    subprocess.run([sys.executable, "-m", "brainmri.configure"], cwd=clone, check=True)
    file = clone / "params.yaml"
    params = yaml.safe_load(file.read_text("utf-8"))
    preset = yaml.safe_load((clone / f"conf/preset/{PRESET}.yaml").read_text("utf-8"))
    del params["ensemble"], params["further_input"]
    params["members"], params["recipes"] = MEMBERS, preset["recipes"]
    checked = EditableParams.model_validate(params)
    params["ensemble"] = derive_ensemble(checked)
    params["further_input"] = checked.data.further_input
    file.write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
    command = ["dvc", "repro", "--quiet", "bootstrap-sample", "features"]
    subprocess.run(command, cwd=clone, env=environment(), check=True)
    return clone


def environment() -> dict[str, str]:
    """Return this process's environment, with its Python first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if name != "COLORTERM"}
    return {**inherited, "PATH": path, "TERM": "xterm-256color"}


def record(clone: Path) -> list[tuple[float, Screen]]:
    """Run the command in a terminal; return its screens with the seconds at which each appeared.

    Raises
    ------
    subprocess.CalledProcessError
        If the command fails.
    """
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {COMMAND}\r\n".encode())
    frames = [(0.0, read_screen(screen))]
    driver, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    started = time.monotonic()
    process = subprocess.Popen(
        COMMAND.split(),
        cwd=clone,
        env=environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    while content := read(driver):
        stream.feed(content)
        now = time.monotonic() - started
        if now - frames[-1][0] >= FRAME_S:
            frames.append((now, read_screen(screen)))
    os.close(driver)
    if status := process.wait():
        print(*screen.display, sep="\n")
        raise subprocess.CalledProcessError(status, COMMAND)
    return [*frames, (time.monotonic() - started, read_screen(screen))]


def read(driver: int) -> bytes:
    """Read what the terminal got; nothing if all programs have left it."""
    try:
        return os.read(driver, 65536)
    except OSError:  # as Linux reports that
        return b""


def read_screen(screen: pyte.Screen) -> Screen:
    """Return the lines of a terminal, without what is blank at their ends."""
    lines = []
    for row in range(LINES):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        spans, column = [], 0
        for (color, is_bold), group in groupby(cells, lambda cell: (cell.fg, cell.bold)):
            text = "".join(cell.data for cell in group)
            if text.strip():
                spans.append(Span(column, text.rstrip(), color, is_bold))
            column += len(text)
        lines.append(tuple(spans))
    return tuple(lines)


def draw(frames: list[tuple[float, Screen]]) -> str:
    """Draw the screens as a film, of which an animation shows one at a time.

    A line that several screens have is drawn once, and used by all of them.
    """
    frames = [frame for former, frame in pairwise([(0.0, None), *frames]) if former[1] != frame[1]]
    pauses = [min(after[0] - before[0], MAX_FRAME_S) for before, after in pairwise(frames)]
    speed = max(sum(pauses) / (PLAYED_S - LAST_FRAME_S), 1)
    durations = [*(pause / speed for pause in pauses), LAST_FRAME_S]
    width, height = COLUMNS * CELL_WIDTH + 2 * MARGIN, LINES * LINE_HEIGHT + 2 * MARGIN
    names = {line: f"l{number}" for number, line in enumerate(unique_lines(frames))}
    shown_at, keyframes = 0.0, []
    for number, duration in enumerate(durations):
        percentage = 100 * shown_at / sum(durations)
        keyframes.append(f"{percentage:.2f}% {{ transform: {_shift(number, height)}; }}")
        shown_at += duration
    style = STYLE.replace("DURATION", f"{sum(durations):.1f}")
    style = style.replace("LAST", _shift(len(frames) - 1, height))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" role="img">',
        f"<title>{COMMAND} in a terminal: a table shows how far each member's training is</title>",
        f"<style>{style}@keyframes film {{ {' '.join(keyframes)} }}</style>",
        "<defs>",
        *(_draw_line(name, line) for line, name in names.items()),
        "</defs>",
        f'<rect width="{width:g}" height="{height}" rx="8" fill="#161b22"/>',
        '<g class="film">',
    ]
    for number, (_, screen) in enumerate(frames):
        for row, line in enumerate(screen):
            if line:
                y = number * height + MARGIN + LINE_HEIGHT * (row + 0.75)
                parts.append(f'<use href="#{names[line]}" y="{y:g}"/>')
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def unique_lines(frames: list[tuple[float, Screen]]) -> list[Line]:
    """List the lines of all screens that are not blank, each once."""
    return list(dict.fromkeys(line for _, screen in frames for line in screen if line))


def _shift(number: int, height: int) -> str:
    return f"translateY(-{number * height}px)"


def _draw_line(name: str, line: Line) -> str:
    spans = []
    for span in line:
        x = MARGIN + span.column * CELL_WIDTH
        color = COLORS.get(span.color.removeprefix("bright"), f"#{span.color}")
        fill = f' fill="{color}"' if span.color != "default" else ""
        bold = ' class="bold"' if span.is_bold else ""
        width = f' textLength="{len(span.text) * CELL_WIDTH:g}"'
        spans.append(f'<tspan x="{x:g}"{width}{fill}{bold}>{escape(span.text)}</tspan>')
    return f'<text id="{name}" xml:space="preserve">{"".join(spans)}</text>'


if __name__ == "__main__":
    main()
