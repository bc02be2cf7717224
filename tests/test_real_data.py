"""The 253 real images: read whole, and split without a leak. Skipped where they are not at hand."""

import json

import numpy as np
import pytest
from conftest import ROOT

from stages.shared.sampling import hash_array

REAL = ROOT.parent / "shared/data/brain_mri"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here")
def test_real_images_are_read_and_no_near_duplicates_stand_on_both_sides(fresh):
    fresh.edit(data__source=str(REAL))
    output = fresh.run("dvc", "repro", "bootstrap-sample")
    assert json.loads(fresh.read("metrics/ingest.json")) == {"images": 253, "rejected": 0, "classes": {"no": 98, "yes": 155}}
    metadata, split = (json.loads(fresh.read(path)) for path in ("data/rad/metadata.json", "data/split.json"))
    hashes = hash_array((image["perceptual_hash"], image["whole_hash"]) for image in metadata["images"])
    labels = np.array([image["class"] == "yes" for image in metadata["images"]])
    test, training = split["test"], split["training"]
    assert sorted(test + training) == list(range(253))
    apart = np.unpackbits(hashes[test][:, None] ^ hashes[training][None], axis=3).sum(axis=3)
    assert apart.min() > 20
    assert len(set(split["groups"])) == 199
    assert abs(labels[test].mean() - labels[training].mean()) < 0.05
    assert "Traceback" not in output
