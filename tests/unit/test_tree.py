"""What is in Git: the folders and files that the README names, and nothing large."""

import subprocess

from tests.support.checkout import ROOT

TOP_LEVEL = {
    *(".ci", ".dvc", ".dvcignore", ".gitignore", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"),
    *("LICENSE", "Makefile", "README.es.md", "README.md", "benchmarks", "brainmri", "conf", "data"),
    *("docker", "docs", "dvc.lock", "dvc.yaml", "metrics", "mkdocs.yml", "models", "params.yaml"),
    *(
        "plots",
        "pyproject.toml",
        "requirements",
        "requirements.in",
        "requirements.txt",
        "stages",
        "tests",
    ),
}
MAX_BYTES = 1_000_000


def tracked() -> list[str]:
    command = ["git", "ls-files", "-z"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in output.split("\0") if (ROOT / path).is_file()]


def test_top_level():
    assert {path.split("/")[0] for path in tracked()} <= TOP_LEVEL


def test_no_large_file():
    assert [path for path in tracked() if (ROOT / path).stat().st_size > MAX_BYTES] == []
