"""Draw each member's sample: images to train it on (in-bag) and to evaluate it on (out-of-bag).

    dvc repro bootstrap-sample

Reads   data/rad/metadata.json, data/split.json; params: seed, members, bootstrap, ensemble
Writes  data/bootstrap/member-NN.json   rows of the store; an in-bag row may repeat
"""

import numpy as np

from brainmri.common.files import write_json
from brainmri.common.params import committee_folds, load_params, member_name, member_seed
from brainmri.common.paths import SAMPLES
from brainmri.sampling.bootstrap import draw_sample, folds_of_committee
from brainmri.sampling.files import read_split
from brainmri.store.metadata import image_labels, image_patients, read_metadata


def main() -> None:
    params = load_params()
    metadata = read_metadata()
    split = read_split(len(metadata["images"]))
    training = np.array(split["training"])
    classes = metadata["classes"]
    labels, groups = image_labels(metadata)[training], np.array(split["groups"])[training]

    scheme, seed = params.bootstrap.scheme, member_seed(params.seed, 0)
    knows_patients = image_patients(metadata) is not None
    if scheme == "committee":
        fraction = params.ensemble[member_name(0)].fraction
        folds = folds_of_committee(labels, groups, fraction)
        if folds < committee_folds(fraction):
            print(
                "warning: a class has few independent groups, so that each member holds out one of"
                f" {folds} folds of the images, not of {committee_folds(fraction)}"
            )
    for index in range(params.members):
        member = member_name(index)
        fraction = params.ensemble[member].fraction
        in_bag, out_of_bag = draw_sample(
            scheme, labels, groups, classes, fraction, seed, index, knows_patients
        )
        sample = {
            "in_bag": training[in_bag].tolist(),
            "out_of_bag": training[out_of_bag].tolist(),
        }
        write_json(SAMPLES / f"{member}.json", sample)
        drawn = len(np.unique(in_bag))
        print(
            f"{member}: {len(in_bag)} draws of {drawn} images, {len(out_of_bag)} images out of bag"
        )
        present = {classes[label] for label in labels[out_of_bag]}
        if missing := [repr(name) for name in classes if name not in present]:
            print(f"warning: {member} has no out-of-bag image of {', '.join(missing)}")
