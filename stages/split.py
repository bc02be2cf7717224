"""Chooses the test images: one of several stratified folds, near duplicates never on both sides.

    dvc repro split

Reads   data/rad/metadata.json; params: seed, split
Writes  data/split.json   test and training rows of the RAD, the group of near duplicates of each row
"""

import numpy as np

from stages.shared.errors import UserError
from stages.shared.files import write_json
from stages.shared.params import load_params
from stages.shared.rad import Image, read_metadata
from stages.shared.running import run_stage
from stages.shared.sampling import hash_array, near_duplicate_groups, stratified_group_folds

LARGE = 0.1  # of a class


def main() -> None:
    params = load_params()
    metadata = read_metadata()
    classes, images = metadata["classes"], metadata["images"]
    labels = np.array([classes.index(image["class"]) for image in images])
    hashes = hash_array((image["perceptual_hash"], image["whole_hash"]) for image in images)

    groups = near_duplicate_groups(hashes, params.split.near_duplicate_bits)
    for line in describe_large_groups(groups, images, classes):
        print(line)
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


def describe_large_groups(groups: np.ndarray, images: list[Image], classes: list[str]) -> list[str]:
    """One line for each group of near duplicates that holds more than a tenth of a class: its images may only look alike."""
    lines = []
    for name in classes:
        rows = np.array([row for row, image in enumerate(images) if image["class"] == name])
        for group, count in zip(*np.unique(groups[rows], return_counts=True), strict=True):
            if count > max(1, LARGE * len(rows)):
                first, second = (images[row]["path"] for row in rows[groups[rows] == group][:2])
                lines.append(
                    f"warning: {count} of {len(rows)} images of class {name!r} are one group of near duplicates, such as"
                    f" {first!r} and {second!r}; if they are not, lower split.near_duplicate_bits"
                )
    return lines


if __name__ == "__main__":
    run_stage(main)
