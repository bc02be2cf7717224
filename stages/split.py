"""Choose the test images: given ones, or one of several stratified folds.

    dvc repro split

Near duplicates, and images of one patient, are on one side.

Reads   data/rad/metadata.json; params: seed, split
Writes  data/split.json   test, training and excluded rows of the store, each row's group
"""

import numpy as np

from brainmri.common.errors import printable
from brainmri.common.files import write_json
from brainmri.common.params import load_params
from brainmri.common.paths import SPLIT
from brainmri.sampling.files import kind_of_groups
from brainmri.sampling.groups import (
    decode_hashes,
    join_groups,
    joined_patients_warnings,
    large_group_warnings,
    near_duplicate_groups,
)
from brainmri.sampling.splitting import describe, split_fold, split_given, unbalanced_warnings
from brainmri.store.metadata import (
    given_test_images,
    has_given_split,
    image_labels,
    image_patients,
    read_metadata,
)


def main() -> None:
    params = load_params()
    settings = params.split
    metadata = read_metadata()
    classes, images, labels = metadata["classes"], metadata["images"], image_labels(metadata)
    hashes = decode_hashes(image["perceptual_hashes"] for image in images)

    groups = near_duplicate_groups(hashes, settings.near_duplicate_bits)
    for warning in large_group_warnings(groups, images, classes):
        print(warning)
    patients = image_patients(metadata)
    if patients is not None:
        groups = join_groups(groups, patients)
        for warning in joined_patients_warnings(groups, patients):
            print(warning)
    is_given = given_test_images(metadata)
    if settings.fold is None and has_given_split(metadata):
        paths = [image["path"] for image in images]
        parts = split_given(labels, groups, classes, is_given, paths, settings.overlap)
    else:
        parts = split_fold(
            labels, groups, classes, is_given, settings.folds, settings.fold or 0, params.seed
        )
        for warning in unbalanced_warnings(parts, labels, classes, settings.folds):
            print(printable(warning))
    split = {
        "test": np.flatnonzero(parts.test).tolist(),
        "training": np.flatnonzero(parts.training).tolist(),
        "excluded": np.flatnonzero(parts.excluded).tolist(),
        "groups": groups.tolist(),
    }
    write_json(SPLIT, split)
    kind = kind_of_groups(settings.near_duplicate_bits is not None, patients is not None)
    print(*map(printable, describe(parts, labels, groups, classes, kind)), sep="\n")
