"""Chooses the test images: one of several stratified folds, near duplicates never on both sides.

    dvc repro split

Reads   data/rad/metadata.json; params: seed, split
Writes  data/split.json   test and training rows of the RAD, the group of near duplicates of each row
"""

import numpy as np

from stages.shared.errors import UserError
from stages.shared.files import write_json
from stages.shared.params import load_params
from stages.shared.rad import read_metadata
from stages.shared.running import run_stage
from stages.shared.sampling import near_duplicate_groups, stratified_group_folds


def main() -> None:
    params = load_params()
    metadata = read_metadata()
    classes, images = metadata["classes"], metadata["images"]
    labels = np.array([classes.index(image["class"]) for image in images])
    hashes = np.array([list(bytes.fromhex(image["perceptual_hash"])) for image in images], np.uint8)

    groups = near_duplicate_groups(hashes, params.split.near_duplicate_bits)
    folds = stratified_group_folds(labels, groups, classes, params.split.folds, params.seed)
    is_test = folds == params.split.fold
    for label, name in enumerate(classes):
        if len(set(is_test[labels == label])) < 2:
            raise UserError(
                f"fold {params.split.fold} has no image of class {name!r}, or all; change split.fold, split.folds or seed"
            )
    test, training = np.flatnonzero(is_test), np.flatnonzero(~is_test)

    write_json("data/split.json", {"test": test.tolist(), "training": training.tolist(), "groups": groups.tolist()})
    print(
        f"{len(images)} images, {groups.max() + 1} groups of near duplicates; {len(training)} to train on, {len(test)} to test on"
    )
    for label, name in enumerate(classes):
        in_training, in_test = np.mean(labels[training] == label), np.mean(labels[test] == label)
        print(f"  {name}: {in_training:.1%} of the training images, {in_test:.1%} of the test images")


if __name__ == "__main__":
    run_stage(main)
