"""The audit of the real images, where they are at hand: what is known of them is on its lists."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brainmri.audit import __main__
from tests.support.checkout import ROOT

REAL_DATA = ROOT.parent / "shared/data"
pytestmark = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"{REAL_DATA} is missing")


@pytest.fixture
def audit(tmp_path, monkeypatch) -> Callable[..., dict]:
    """Run the command in an empty project, and return its metrics."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", "params.yaml")

    def run(*arguments: Path | str) -> dict:
        monkeypatch.setattr(sys, "argv", ["audit", *map(str, arguments)])
        __main__.main()
        return json.loads(Path("metrics/data_audit.json").read_text())

    return run


def test_published_split_leaks(audit):
    metrics = audit(REAL_DATA / "four_class")
    assert metrics["split"] == {"training": 1624, "test": 458}
    assert metrics["rejected"] == 0
    assert metrics["across_split"]["images"] == 132
    # All images in color are of one class
    assert metrics["colored"]["images"] == metrics["colored"]["classes"]["notumor"] > 0


def test_duplicates_of_two_classes(audit):
    metrics = audit(REAL_DATA / "brain_mri")
    assert metrics["classes"] == {"no": 98, "yes": 155}
    assert metrics["exact_duplicates"]["groups"] == 22
    assert metrics["exact_duplicates"]["images"] == 47
    assert metrics["groups_of_near_duplicates"] == 199
    assert metrics["across_classes"]["images"] == 0


def test_collections_share_images(audit):
    shared = audit(REAL_DATA / "four_class/Testing", "--against", REAL_DATA / "four_class/Training")
    assert shared["against"]["images"] == 132
    with open("plots/data_audit/against.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 132
    assert rows[1]["path"].startswith(f"{REAL_DATA}/four_class/Training/")
