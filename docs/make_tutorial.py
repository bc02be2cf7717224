"""Run the commands of docs/tutorial.md in a new clone, and write their outputs and times there.

    python -m docs.make_tutorial IMAGES FOLDER [--from COMMAND]

IMAGES is a folder with the public images in `no` and `yes`; FOLDER, which may not exist, gets the
clone. An output comes after its block of commands, between `<!-- output: PATTERN -->` and
`<!-- end -->`: the lines in which the pattern occurs, or all without a pattern. Times are those of
all commands of a block.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from itertools import dropwhile
from pathlib import Path

from brainmri.common.files import write_bytes

PAGE = Path("docs/tutorial.md")
OUTPUT = r"<!-- output(?:: (?P<pattern>[^\n]*))? -->\n.*?<!-- end -->\n"
BLOCK = re.compile(rf"```bash\n(?P<commands>.*?)```\n(?P<output>{OUTPUT})?", re.DOTALL)
MACHINE = re.compile(r"(<!-- machine -->\n).*?(<!-- end -->)", re.DOTALL)
DOWNLOAD, SUBSTITUTE = "dvc import ", "dvc add data/raw"
AUTHOR = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "Your Name", "EMAIL": "you@example.org"}.items()
}


def main() -> None:
    options = parse_arguments()
    blocks = [block["commands"] for block in BLOCK.finditer(PAGE.read_text("utf-8"))]
    if options.first:
        clone = options.folder.resolve() / "clone"
        blocks = list(dropwhile(lambda commands: options.first not in commands, blocks))
    else:
        clone = make_clone(options.folder)
        shutil.copytree(options.images, clone / "data/raw")
        replace(
            MACHINE, lambda match: f"{match[1]}Times are from {describe_machine()}.\n{match[2]}"
        )
    for commands in blocks:
        print(commands, end="", flush=True)
        started = time.monotonic()
        lines = run(commands, clone)
        seconds = time.monotonic() - started
        print(*lines, format_time(seconds), sep="\n", flush=True)
        write_output(commands, lines, seconds)


def parse_arguments() -> argparse.Namespace:
    """Parse the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.make_tutorial", description=__doc__.splitlines()[0]
    )
    parser.add_argument("images", metavar="IMAGES", type=Path)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument(
        "--from",
        dest="first",
        metavar="COMMAND",
        help="go on in FOLDER with the first block that has this in its commands",
    )
    return parser.parse_args()


def make_clone(folder: Path) -> Path:
    """Clone the project into a new folder, with this environment and the built-in images, as `make
    repro` leaves it.
    """
    folder.mkdir(parents=True)
    clone = folder.resolve() / "clone"
    subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
    (clone / ".venv").symlink_to(Path(sys.prefix))
    for command in ("python -m brainmri.configure", "dvc repro --quiet data/dvc.yaml"):
        run(command, clone)
    return clone


def run(commands: str, clone: Path) -> list[str]:
    """Run a block of commands, and return the lines that they print.

    Raises
    ------
    subprocess.CalledProcessError
        If a command fails.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **AUTHOR, "PATH": path, "HOME": str(clone.parent)}
    lines = []
    for command in commands.splitlines():
        result = subprocess.run(
            ["bash", "-c", SUBSTITUTE if command.startswith(DOWNLOAD) else command],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if result.returncode:
            print(result.stdout)
            result.check_returncode()
        lines += result.stdout.replace(str(clone.parent), "…").splitlines()
    return lines


def write_output(commands: str, lines: list[str], seconds: float) -> None:
    """Write the output of a block of commands into the page, as the page is now."""

    def fill(block: re.Match) -> str:
        if block["commands"] != commands or not block["output"]:
            return block[0]
        pattern = block["pattern"] or ""
        shown = [line.rstrip() for line in lines if line.strip() and re.search(pattern, line)]
        marker = block["output"].splitlines()[0]
        output = [marker, "```", *shown, "```", f"*Time: {format_time(seconds)}*", "<!-- end -->"]
        return block[0].replace(block["output"], "\n".join(output) + "\n")

    replace(BLOCK, fill)


def replace(pattern: re.Pattern, new) -> None:
    """Replace what a pattern matches in the page."""
    write_bytes(PAGE, pattern.sub(new, PAGE.read_text("utf-8")).encode())


def format_time(seconds: float) -> str:
    """Format a duration, such as "41 s" or "3 min 5 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def describe_machine() -> str:
    """Name the number of cores, the processor, and how busy it is with other work."""
    processors = Path("/proc/cpuinfo")
    text = processors.read_text() if processors.exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    name = model[1] if model else platform.machine()
    cores, load = os.cpu_count(), os.getloadavg()[0]
    described = f"{cores} cores ({name})"
    if load > 1:
        described += f", busy with other work (a load of {load:.1f}); idle, they take less"
    return described


if __name__ == "__main__":
    main()
