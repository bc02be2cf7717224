"""The metadata of the store: paths and classes must be those of a source."""

import pytest

from brainmri.common.errors import UserError
from brainmri.common.files import write_json
from brainmri.store.metadata import read_metadata

IMAGE = {
    "sha256": "0" * 64,
    "perceptual_hash": "1" * 64,
    "whole_hash": "2" * 64,
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
