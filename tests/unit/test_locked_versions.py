"""No locked version is below one that is known to have a weakness fixed."""

import re

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.checkout import ROOT

LOCKED = (ROOT / "requirements/locked.txt").read_text()
KNOWN_FIXED = (ROOT / "requirements/known_fixed.txt").read_text()
SOURCE = re.compile(r"(CVE-\d{4}|GHSA|PYSEC-\d{4})-\w+")


def versions_of(text: str) -> dict[str, Version]:
    """Parse lines of name==version; comments are skipped."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.split("==") for line in filter(None, lines))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def outdated(locked: str, known_fixed: str) -> list[str]:
    """List the packages that are locked below a fixed version."""
    versions = versions_of(locked)
    return [name for name, fixed in versions_of(known_fixed).items() if versions[name] < fixed]


def test_locked_versions_have_what_is_fixed():
    assert outdated(LOCKED, KNOWN_FIXED) == []


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


def test_gpu_libraries_are_of_the_locked_version():
    page = (ROOT / "docs/installation.md").read_text("utf-8")
    assert f"tensorflow[and-cuda]=={versions_of(LOCKED)['tensorflow']}'" in page
