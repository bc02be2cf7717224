"""Names of files: those of system files are hidden, and no others; equal names in Unicode."""

import unicodedata

import pytest

from brainmri.common.file_names import is_hidden, stored_paths
from tests.support.trees import SYSTEM_FILES

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "après") for form in ("NFC", "NFD"))
SYSTEM_NAMES = [
    *(path.split("/")[0] for path in SYSTEM_FILES),
    "found.123",
    ":2eDS_Store",
    "x@SynoResource",
    "~syncthing~a.png.tmp",
    "DESKTOP DB",
]
OTHER_NAMES = [
    "found.12",
    "found.1234",
    "lost.found",
    "thumbs.db.png",
    "recycle",
    "a.:2e",
    "syncthing.tmp",
    "icon",
    "a.png",
]


@pytest.mark.parametrize("name", SYSTEM_NAMES)
def test_system_files_are_hidden(name):
    assert is_hidden(name)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_other_files_are_not_hidden(name):
    assert not is_hidden(name)


def test_stored_paths_are_composed_unless_equal():
    paths = [f"{DECOMPOSED}/1", f"{DECOMPOSED}/2", f"{COMPOSED}/2", "é", "a"]
    assert stored_paths(paths) == {
        f"{DECOMPOSED}/1": f"{COMPOSED}/1",
        f"{DECOMPOSED}/2": f"{DECOMPOSED}/2",
        f"{COMPOSED}/2": f"{COMPOSED}/2",
        "é": "é",
        "a": "a",
    }
