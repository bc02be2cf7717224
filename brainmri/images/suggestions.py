"""Commands that a message about the layout of a source suggests."""

import re
import shlex
from pathlib import Path

from brainmri.images.folder_tree import FolderTree


def suggest_source(source: Path, path: str) -> str:
    """Return the command that runs the pipeline on a folder below the source."""
    value = f"{source}/{path}"
    if not re.fullmatch(r"[\w./@ -]+", value, re.ASCII):  # Hydra would parse the rest as syntax
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        value = f'"{escaped}"'
    return f"dvc exp run -S {quote_for_shell(f'data.source={value}')}"


def suggest_sources(tree: FolderTree, paths: list[str]) -> str:
    """Return what to type to use the largest of folders of class folders, or all of them."""

    def count(path: str) -> int:
        return len(tree.files[path]) + sum(map(count, tree.folders[path]))

    largest = suggest_source(tree.source, max(paths, key=count))
    if len(paths) == 1:
        return f"run `{largest}`"
    target = f"{tree.source}-joined"
    quoted_target = quote_for_shell(target)
    contents = " ".join(quote_for_shell(f"{tree.source}/{path}/.") for path in paths)
    join = f"mkdir {quoted_target} && cp -r --backup=numbered {contents} {quoted_target}"
    return f"run `{largest}`, or use all after `{join}` with data.source={target}"


def quote_for_shell(text: str) -> str:
    """Quote a word for a shell; a word that can't be printed is quoted as Python does it."""
    return shlex.quote(text) if text.isprintable() else repr(text)
