"""The 253 real images, where they are at hand: all are read, and the split has no leak."""

import json

import numpy as np
import pytest

from brainmri.sampling.groups import decode_hashes
from tests.support.checkout import ROOT

REAL_DATA = ROOT.parent / "shared/data/brain_mri"


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"{REAL_DATA} is missing")
def test_real_images_are_split_without_near_duplicates(fresh):
    fresh.edit(data__source=str(REAL_DATA))
    output = fresh.run("dvc", "repro", "bootstrap-sample")
    assert "Traceback" not in output
    metrics = json.loads(fresh.read("metrics/ingest.json"))
    assert metrics == {"images": 253, "rejected": 0, "classes": {"no": 98, "yes": 155}}

    images = json.loads(fresh.read("data/rad/metadata.json"))["images"]
    split = json.loads(fresh.read("data/split.json"))
    hashes = decode_hashes(image["perceptual_hashes"] for image in images)
    labels = np.array([image["class"] == "yes" for image in images])
    test, training = split["test"], split["training"]
    assert sorted(test + training) == list(range(253))
    upright, mirrored = hashes[:, :2], hashes[:, 2:]
    for of_test, bits in ((upright, 20), (mirrored, 15)):
        differing = np.unpackbits(of_test[test][:, None] ^ upright[training][None], axis=3)
        assert differing.sum(axis=3).min() > bits
    assert len(set(split["groups"])) == 199
    assert abs(labels[test].mean() - labels[training].mean()) < 0.05
