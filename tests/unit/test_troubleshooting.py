"""Each message in docs/troubleshooting.md is one that the code prints."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dvc
import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("brainmri", "stages", "conf")
OF_DVC = ("lock.py", "rwlock.py", "repo/__init__.py")
PAGE = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
MESSAGES = re.findall(r"^\| `(.*?)` \|", PAGE, re.MULTILINE)
VALUE = "…"


def texts(path: Path) -> Iterator[str]:
    """Yield the strings of a module, with an ellipsis for each value that is put into one."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = (getattr(part, "value", VALUE) for part in node.values)
            yield "".join(part if isinstance(part, str) else VALUE for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def printed() -> str:
    """All strings of the code, and those of DVC that the page is about."""
    modules = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    modules += [Path(dvc.__file__).parent / name for name in OF_DVC]
    return "\n".join(text for path in modules for text in texts(path))


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_in_the_code(message, printed):
    words = [re.escape(part) for part in message.split(VALUE)]
    assert re.search(".*?".join(words), printed), "write … for each value"
    assert max(map(len, words)) > 10, "too little to find it by"


def test_all_messages_are_checked():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    assert len(MESSAGES) == len([row for row in rows if not row.startswith(("| message", "| ---"))])
