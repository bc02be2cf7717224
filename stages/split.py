"""Choose the test images: one of several stratified folds, with near duplicates on one side.

    dvc repro split

Reads   data/rad/metadata.json; params: seed, split
Writes  data/split.json   test and training rows of the store, each row's group of near duplicates
"""

import numpy as np

from brainmri.common.errors import UserError
from brainmri.common.files import write_json
from brainmri.common.params import load_params
from brainmri.common.paths import SPLIT
from brainmri.sampling.folds import stratified_group_folds
from brainmri.sampling.groups import decode_hashes, large_group_warnings, near_duplicate_groups
from brainmri.store.metadata import image_labels, read_metadata


def main() -> None:
    params = load_params()
    metadata = read_metadata()
    classes, images, labels = metadata["classes"], metadata["images"], image_labels(metadata)
    hashes = decode_hashes((image["perceptual_hash"], image["whole_hash"]) for image in images)

    groups = near_duplicate_groups(hashes, params.split.near_duplicate_bits)
    for warning in large_group_warnings(groups, images, classes):
        print(warning)
    folds = stratified_group_folds(labels, groups, classes, params.split.folds, params.seed)
    is_test = folds == params.split.fold
    for label, name in enumerate(classes):
        if len(set(is_test[labels == label])) < 2:
            raise UserError(
                f"fold {params.split.fold} has no image of class {name!r}, or all of them;"
                " change split.fold, split.folds or seed"
            )
    test, training = np.flatnonzero(is_test), np.flatnonzero(~is_test)
    split = {"test": test.tolist(), "training": training.tolist(), "groups": groups.tolist()}
    write_json(SPLIT, split)

    print(f"{len(images)} images, {groups.max() + 1} groups of near duplicates;", end=" ")
    print(f"{len(training)} training images, {len(test)} test images")
    for label, name in enumerate(classes):
        in_training, in_test = (np.mean(labels[rows] == label) for rows in (training, test))
        print(
            f"  {name}: {in_training:.1%} of the training images, {in_test:.1%} of the test images"
        )
