"""Draws each member's bootstrap sample: the images it learns from (in-bag) and those it is judged on (out-of-bag).

    dvc repro bootstrap-sample

Reads   data/rad/metadata.json, data/split.json; params: seed, members, bootstrap, ensemble
Writes  data/bootstrap/member-NN.json   rows of the RAD; an in-bag row may repeat
"""

import numpy as np

from stages.shared.files import write_json
from stages.shared.params import load_params, member_name, member_seed
from stages.shared.rad import read_metadata, read_split
from stages.shared.running import run_stage
from stages.shared.sampling import draw_sample


def main() -> None:
    params = load_params()
    metadata = read_metadata()
    split = read_split(len(metadata["images"]))
    classes, training = metadata["classes"], np.array(split["training"])
    labels = np.array([classes.index(image["class"]) for image in metadata["images"]])[training]
    groups = np.array(split["groups"])[training]

    scheme, seed = params.bootstrap.scheme, member_seed(params.seed, 0)
    for index in range(params.members):
        name = member_name(index)
        fraction = params.ensemble[name].fraction
        in_bag, out_of_bag = draw_sample(scheme, labels, groups, classes, fraction, seed, index)
        sample = {"in_bag": training[in_bag].tolist(), "out_of_bag": training[out_of_bag].tolist()}
        write_json(f"data/bootstrap/{name}.json", sample)
        drawn = len(np.unique(in_bag))
        print(f"{name}: {len(in_bag)} draws of {drawn} images, {len(out_of_bag)} images out of bag")


if __name__ == "__main__":
    run_stage(main)
