"""Locked packages have hashes and what is required, and none has a weakness known to be fixed."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.checkout import ROOT

NOT_LOCKED = {"bench", "training"}  # the second is a part of others
SOURCES = [
    path
    for path in [ROOT / "requirements.in", *sorted((ROOT / "requirements").glob("*.in"))]
    if path.stem not in NOT_LOCKED
]
ALL = (ROOT / "requirements/dev.txt").read_text()
KNOWN_FIXED = (ROOT / "requirements/known_fixed.txt").read_text()
SOURCE = re.compile(r"(CVE-\d{4}|GHSA|PYSEC-\d{4})-\w+")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


class Package(NamedTuple):
    name: str
    version: Version
    hashes: frozenset[str]


def packages_of(text: str) -> list[Package]:
    """Parse lines of name==version, with their hashes; comments are skipped."""
    packages = []
    for line in text.replace("\\\n", " ").splitlines():
        content = line.partition("#")[0].strip()
        if content:
            requirement = Requirement(HASH.sub("", content))
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            name = canonicalize_name(requirement.name)
            packages.append(Package(name, Version(pin.version), frozenset(HASH.findall(content))))
    return packages


def versions_of(text: str) -> dict[str, Version]:
    """Map each package to its version, the lowest where platforms have several."""
    return {name: version for name, version, _ in sorted(packages_of(text), reverse=True)}


def outdated(locked: str, known_fixed: str) -> list[str]:
    """List the packages that are locked below a fixed version."""
    versions = versions_of(locked)
    return [name for name, fixed in versions_of(known_fixed).items() if versions[name] < fixed]


def required(path: Path) -> list[Requirement]:
    """Read a source, with those that it includes."""
    requirements = []
    for line in path.read_text().splitlines():
        content = line.partition("#")[0].strip()
        if content.startswith("-r "):
            requirements += required(path.parent / content[3:])
        elif content:
            requirements.append(Requirement(content))
    return requirements


def dry_run(*targets: str) -> list[str]:
    """List the commands with which make would make targets."""
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", *targets]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return output.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_locked_files_have_hashes_of_what_is_required(source):
    text = source.with_suffix(".txt").read_text()
    assert "make locked" in text.splitlines()[1]
    packages = packages_of(text)
    assert [package.name for package in packages if not package.hashes] == []
    versions = versions_of(text)
    for requirement in required(source):
        version = versions[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement}: run `make locked`"
    others = {package for package in packages if not package.name.startswith("nvidia-")}
    assert others <= set(packages_of(ALL))


def test_one_command_locks_all():
    commands = "\n".join(dry_run("locked"))
    assert "--generate-hashes" in commands
    assert "requirements/dev.in --output-file requirements/dev.txt" in commands
    parts = re.search(r"for part in (.*); do", commands)[1].split()
    paths = {ROOT / f"{part}.in" for part in parts}
    assert paths == set(SOURCES) - {ROOT / "requirements/dev.in"}


def test_make_checks_hashes():
    commands = dry_run(".venv/ready-dev", ".venv/ready-app")
    installs = [line for line in commands if "pip install" in line]
    assert [line.split()[-1] for line in installs] == [
        "requirements/build.txt",
        "requirements.txt",
        "requirements/dev.txt",
        "requirements/app.txt",
    ]
    assert all("--require-hashes" in line for line in installs)


def test_requirements_named_by_messages_exist():
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "brainmri").rglob("*.py"))
    names = set(re.findall(r"requirements(?:/\w+)?\.(?:in|txt)\b", code))
    assert {"requirements.txt", "requirements/training.in", "requirements/gpu.txt"} <= names
    assert [name for name in sorted(names) if not (ROOT / name).is_file()] == []


def test_locked_versions_have_what_is_fixed():
    assert outdated(ALL, KNOWN_FIXED) == []


def test_each_fixed_version_has_its_source():
    lines = [line for line in KNOWN_FIXED.splitlines() if line and not line.startswith("#")]
    assert len(lines) > 10
    assert [line for line in lines if not SOURCE.search(line.partition("#")[2])] == []


@pytest.mark.parametrize(
    ("locked", "expected"),
    [("Keras==3.15.1\n", []), ("keras==3.9.0\n", ["keras"]), ("keras==3.15.0rc1\n", ["keras"])],
)
def test_lower_versions_are_found(locked, expected):
    assert outdated(locked, "# of models\nkeras==3.15.0  # CVE-2026-12570\n") == expected
