"""Code, parameters, templates and pages use the field's words and American spelling."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VAGUE_NAMES = {"told", "one", "found", "wrong", "known", "seen", "things", "stuff"}
WORDS = {
    r"told|tells?(?!\(\))|telling": "report, print, log",
    r"anew": "again",
    r"mend(s|ed|ing)?": "fix, repair",
    r"side by side": "in parallel",
    r"learn(s|ed|t)? from": "train on",
    r"left out|leaves? out": "skipped, excluded, held out",
    r"(stands?|lies|lie) in": "is in",
    r"puts? (that )?right": "fix, repair",
    r"speaks? (for|against)": "evidence for",
    r"shares? of|as a share": "fraction",
    r"pictures?": "image, figure",
    r"falsely": "false alarm",
    r"what it comes through": "fault tolerance",
    r"whole kind|of its kind": "",
    r"grey|colour\w*|centre\w*|tumour\w*|\w*labelled": "American",
    r"neighbour\w*|behaviour\w*|favour\w*": "American",
    r"\w*(normalis|standardis|synchronis|organis|recognis|minimis|maximis)\w*": "American",
    r"\w*optimis(?!m|tic)\w*": "American",
}


def listed(*patterns: str) -> list[Path]:
    output = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = [ROOT / line for line in output.splitlines()]
    return [path for path in paths if path.is_file() and path.name != Path(__file__).name]


TEXTS = listed("*.py", "*.yaml", "*.j2", "Makefile", "*.toml", "*.md")
CODE = listed("*.py")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_words_are_those_of_the_field(path):
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        for pattern, instead in WORDS.items():
            match = re.search(rf"\b(?:{pattern})\b", line, re.IGNORECASE)
            assert not match, f"{path}:{number}: {match[0]!r}; write: {instead}"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_say_what_they_hold(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        name = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.FunctionDef):
            name = node.name
        assert name not in VAGUE_NAMES, f"{path}:{getattr(node, 'lineno', 0)}: {name}"
