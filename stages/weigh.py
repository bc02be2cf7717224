"""Weight the members' votes, calibrate the vote and fit how it is decided.

All of it comes from out-of-bag predictions alone.

    dvc repro weigh

Reads   the members' out-of-bag predictions, data/bootstrap, data/split.json,
        data/rad/metadata.json;
        params: ensemble, train.early_stopping, train.reduce_lr, weigh, decide, evaluate.positive
Writes  models/weights.json
"""

import numpy as np

from brainmri.common.files import write_json
from brainmri.common.params import load_params
from brainmri.common.paths import VOTING_WEIGHTS
from brainmri.evaluation.classes import positive_class
from brainmri.evaluation.decisions import describe_rule, fit_decision
from brainmri.evaluation.prediction_sets import missing_sets
from brainmri.evaluation.voting import ENSEMBLE
from brainmri.evaluation.weighting import (
    describe_optimism,
    fit_voting_weights,
    read_out_of_bag_predictions,
)
from brainmri.sampling.files import read_split
from brainmri.store.metadata import image_labels, image_patients, read_metadata

MAX_PRINTED = 10  # classes


def main() -> None:
    params = load_params()
    metadata = read_metadata()
    classes, labels = metadata["classes"], image_labels(metadata)
    split = read_split(len(labels))
    groups = np.array(split["groups"])
    positive = positive_class(classes, params.evaluate.positive)
    out_of_bag = read_out_of_bag_predictions(params.ensemble, split["training"], classes)

    vote = fit_voting_weights(
        labels,
        groups,
        out_of_bag,
        params.weigh.scheme,
        params.weigh.calibrate,
        positive,
    )
    vote["decision"], reason = fit_decision(
        labels,
        groups,
        image_patients(metadata),
        out_of_bag,
        np.array([member["weight"] for member in vote["members"].values()]),
        vote["calibrations"][ENSEMBLE],
        classes,
        positive,
        params.decide,
    )
    write_json(VOTING_WEIGHTS, vote)
    for name, member in vote["members"].items():
        print(f"{name}: score {member['score']:.4f}, weight {member['weight']:.4f}")
    if "out_of_bag_log_loss" in vote:
        print(describe_optimism(vote["out_of_bag_log_loss"]))
        votes_on = np.bincount(np.concatenate([rows for rows, _ in out_of_bag.values()]))
        if len(out_of_bag) > 1 and votes_on.max() == 1:
            print(
                f"warning: weigh.scheme: {params.weigh.scheme} leaves all weights equal, since each"
                " out-of-bag image has the vote of a single member; expected samples that leave"
                " images to several members, as of -S preset=bagging"
            )
    calibration = vote["calibrations"][ENSEMBLE]
    biases = calibration["biases"]
    described = [f"{name!r} {bias:+.2f}" for name, bias in zip(classes, biases, strict=True)]
    if len(classes) > MAX_PRINTED:
        span = f"{min(biases):+.2f} to {max(biases):+.2f}"
        described = [f"biases of {len(classes)} classes {span}"]
    print(f"calibration: temperature {calibration['temperature']:.2f}", *described)
    print(describe_rule(vote["decision"]))
    if reason:
        print(reason)
    for whose, calibrating in (("", "images"), ("by patient, ", "patients")):
        calibrated_by = vote["decision"][calibrating]
        if calibrated_by and (line := missing_sets(calibrated_by, params.decide.error)):
            print(whose + line)
    if params.train.early_stopping is not None or params.train.reduce_lr is not None:
        print(
            "warning: train.early_stopping or train.reduce_lr has followed the out-of-bag images,"
            " from which weights, calibration, thresholds and prediction sets come: these are"
            " optimistic"
        )
