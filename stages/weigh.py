"""Weight the members' votes, calibrate the vote and fit how it is decided.

All of it comes from out-of-bag predictions alone.

    dvc repro weigh

Reads   the members' out-of-bag predictions, data/bootstrap, data/split.json,
        data/rad/metadata.json;
        params: ensemble, weigh, decide, evaluate.positive
Writes  models/weights.json
"""

import numpy as np

from brainmri.common.files import write_json
from brainmri.common.params import load_params
from brainmri.common.paths import VOTING_WEIGHTS
from brainmri.evaluation.classes import positive_class
from brainmri.evaluation.decisions import fit_decision
from brainmri.evaluation.prediction_sets import missing_sets
from brainmri.evaluation.results import Decision, VoteLogLoss
from brainmri.evaluation.voting import ENSEMBLE
from brainmri.evaluation.weighting import fit_voting_weights, read_out_of_bag_predictions
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
    for line in (reason, missing_sets(vote["decision"]["images"], params.decide.error)):
        if line:
            print(line)


def describe_rule(decision: Decision) -> str:
    """Describe the rule by which votes are decided, and the positive class."""
    positive, rule = decision["positive"], decision["rule"]
    described = f"decision rule: {rule['name']}"
    if rule["threshold"] is not None:
        described += f", {positive!r} from a probability of {rule['threshold']:.3f} on"
        of_patients = decision["patient_rule"]
        if of_patients and of_patients["threshold"] is not None:
            described += f", of patients {of_patients['threshold']:.3f}"
    elif positive is not None:
        described += f"; positive class {positive!r}"
    return described


def describe_optimism(log_loss: VoteLogLoss) -> str:
    """Say how much too low the log loss is on the images to which weights are fitted."""
    fitted, cross_fitted = log_loss["fitted"], log_loss["cross_fitted"]
    return (
        f"out-of-bag log loss of the vote: {fitted:.4f} with weights fitted to the same images,"
        f" {cross_fitted:.4f} cross-fitted; optimism {cross_fitted - fitted:.4f}"
    )
