"""The metadata of the store: paths and classes must be those of a source."""

import pytest

from brainmri.common.errors import UserError
from brainmri.common.files import write_json
from brainmri.store.metadata import (
    given_test_images,
    has_given_split,
    image_patients,
    read_metadata,
)

IMAGE = {
    "sha256": "0" * 64,
    "perceptual_hashes": ["1" * 64, "2" * 64, "3" * 64, "4" * 64],
    "width": 3,
    "height": 4,
    "mode": "L",
    "levels": [0.0, 255.0],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"path": "no/a..b.png"}, None),
        ({"path": "/no/a.png"}, "leads out of data.source"),
        ({"path": "no/../../a.png"}, "leads out of data.source"),
        ({"class": "maybe"}, "does not list the class 'maybe'"),
        ({"sha256": "0" * 63}, "has unexpected content"),
        ({"levels": [0.0]}, "has unexpected content"),
        ({"split": "test"}, "has a split of some images only"),
        ({"patient": 0}, "has a patient of some images only"),
    ],
)
def test_metadata_are_checked(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    images = [{"path": f"{name}/a.png", "class": name, **IMAGE} for name in ("no", "yes")]
    images[1] |= change
    rejected = [{"path": "b", "reason": "c"}]
    content = {"classes": ["no", "yes"], "images": images, "rejected": rejected}
    write_json("data/rad/metadata.json", content)
    if message:
        with pytest.raises(UserError, match=message):
            read_metadata()
    else:
        assert read_metadata() == content


@pytest.mark.parametrize(
    ("first", "second", "patients", "is_test"),
    [
        ({}, {}, None, [False, False]),
        ({"patient": 1}, {"patient": 0}, [1, 0], [False, False]),
        ({"split": "training"}, {"split": "test"}, None, [False, True]),
        ({"split": "test", "patient": 0}, {"split": "test", "patient": 0}, [0, 0], [True, True]),
        ({"patient": -1}, {"patient": 0}, UserError, None),
        ({"patient": "P1"}, {"patient": "P2"}, UserError, None),
        ({"split": "validation"}, {"split": "test"}, UserError, None),
    ],
)
def test_patients_and_given_test_images(tmp_path, monkeypatch, first, second, patients, is_test):
    """Patients are numbers, never identifiers."""
    monkeypatch.chdir(tmp_path)
    images = [
        {"path": "no/a.png", "class": "no", **IMAGE, **first},
        {"path": "yes/a.png", "class": "yes", **IMAGE, **second},
    ]
    content = {"classes": ["no", "yes"], "images": images, "rejected": []}
    write_json("data/rad/metadata.json", content)
    if patients is UserError:
        with pytest.raises(UserError, match="has unexpected content"):
            read_metadata()
        return
    metadata = read_metadata()
    numbers = image_patients(metadata)
    assert (numbers if numbers is None else numbers.tolist()) == patients
    assert given_test_images(metadata).tolist() == is_test
    assert has_given_split(metadata) == ("split" in first)
