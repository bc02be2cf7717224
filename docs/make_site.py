"""Build the documentation as a site that needs no network, from the READMEs and pages in Git.

    python -m docs.make_site [FOLDER]

Writes  site/, or another folder; its first page is index.html
"""

import argparse
import logging
import os
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from mkdocs.commands.build import build
from mkdocs.config import load_config

CONFIG, SITE = Path("mkdocs.yml"), Path("site")
PATTERNS = ("*.md", "docs/*.svg", "docs/*.png", "docs/site/*", "plots/*.png")
NOT_PAGES = re.compile("data/|tests/")
LIST_FILES = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
LINK = re.compile(r"(?<!!)\[([^]]*)\]\((?!https?:|#)([^)#]*)(#[^)]*)?\)")
LIST = re.compile(r"([-*]|\d+\.) ")
MERMAID = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)
FIGURE = "![The stages, and one image's way through them](docs/architecture.svg)\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m docs.make_site", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", nargs="?", metavar="FOLDER", default=SITE, type=Path)
    build_site(parser.parse_args().folder)


def build_site(folder: Path) -> None:
    """Build the site into a folder; a broken link or a page that is in no menu is an error."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with TemporaryDirectory() as pages:
        copy_pages(Path(pages))
        config = load_config(
            str(CONFIG), docs_dir=pages, site_dir=str(folder.absolute()), strict=True
        )
        config.plugins.on_startup(command="build", dirty=False)
        build(config)


def copy_pages(folder: Path) -> None:
    """Copy the pages and what they show, with their paths, so that their links lead to each other.

    A link to a file of the project that is not part of the site becomes its text. A graph in
    Mermaid, for which a browser would download a program, becomes the figure of the architecture.
    """
    listed = subprocess.run([*LIST_FILES, *PATTERNS], check=True, capture_output=True, text=True)
    names = {name for name in listed.stdout.split("\0") if name and not NOT_PAGES.match(name)}
    for name in sorted(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith(".md"):
            shutil.copy(name, folder / name)
            continue

        def keep_link(link: re.Match, page: str = name) -> str:
            target = os.path.normpath(Path(page).parent / link[2])
            return link[1] if target not in names and Path(target).exists() else link[0]

        text = LINK.sub(keep_link, Path(name).read_text("utf-8"))
        (folder / name).write_text(separate_blocks(MERMAID.sub(FIGURE, text)), "utf-8")


def separate_blocks(text: str) -> str:
    """Put blank lines before lists and tables, and around comments, as MkDocs needs them, unlike
    GitHub.
    """
    lines, former, is_code = [], "", False
    for line in text.splitlines():
        is_code ^= line.startswith("```")
        starts = [LIST.match(line) and not LIST.match(former) and not former.startswith(" ")]
        starts += [line.startswith("|") and not former.startswith("|"), former.endswith("-->")]
        if former and not is_code and any(starts):
            lines.append("")
        lines.append(line)
        former = line
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
