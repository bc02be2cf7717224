"""Gives each member a voting weight, and the vote a calibration and a threshold, from out-of-bag predictions alone.

    dvc repro weigh

Reads   the members' out-of-bag predictions, data/bootstrap, data/rad/metadata.json; params: ensemble, weigh,
        evaluate.threshold, evaluate.min_sensitivity
Writes  models/weights.json
"""

import numpy as np

from stages.shared.files import write_json
from stages.shared.members import read_predictions
from stages.shared.metrics import choose_threshold
from stages.shared.params import load_params
from stages.shared.rad import read_metadata, read_sample
from stages.shared.results import WEIGHTS
from stages.shared.running import run_stage
from stages.shared.scratch import MODELS
from stages.shared.voting import ENSEMBLE, UNIFORM, calibrate, fit_calibration, out_of_bag_vote, score, weights

MOST_PRINTED = 10  # classes


def main() -> None:
    params = load_params()
    scheme, names = params.weigh.scheme, list(params.ensemble)
    metadata = read_metadata()
    classes = metadata["classes"]
    labels = np.array([classes.index(image["class"]) for image in metadata["images"]])

    out_of_bag = [np.array(read_sample(name, range(len(labels)))[1]) for name in names]
    predictions = [
        read_predictions(MODELS / name / "out_of_bag.csv", rows.tolist(), classes)
        for name, rows in zip(names, out_of_bag, strict=True)
    ]
    scores = [score(scheme, labels[rows], one) for rows, one in zip(out_of_bag, predictions, strict=True)]
    shares = weights(scheme, np.array(scores))

    def voted(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        votes = out_of_bag_vote(predictions, out_of_bag, shares, len(labels))
        known = ~np.isnan(votes[:, 0])
        return labels[known], votes[known]

    voters = {ENSEMBLE: voted(shares), UNIFORM: voted(np.full(len(names), 1 / len(names)))}
    voters |= {name: (labels[rows], one) for name, rows, one in zip(names, out_of_bag, predictions, strict=True)}
    calibrations = {
        voter: fit_calibration(*known) if params.weigh.calibrate else (1.0, np.zeros(len(classes)))
        for voter, known in voters.items()
    }

    members = {name: {"score": one, "weight": float(share)} for name, one, share in zip(names, scores, shares, strict=True)}
    told = {voter: {"temperature": one, "biases": biases.tolist()} for voter, (one, biases) in calibrations.items()}
    vote = {"scheme": scheme, "calibrations": told}
    if len(classes) == 2:
        true, votes = voters[ENSEMBLE]
        positive = calibrate(votes, *calibrations[ENSEMBLE])[:, 1]
        vote["threshold"] = choose_threshold(params.evaluate.threshold, true, positive, params.evaluate.min_sensitivity)
    write_json(WEIGHTS, {**vote, "members": members})
    for name, member in members.items():
        print(f"{name}: score {member['score']:.4f}, weight {member['weight']:.4f}")
    temperature, biases = calibrations[ENSEMBLE]
    by_class = [f"{name} {bias:+.2f}" for name, bias in zip(classes, biases, strict=True)]
    if len(classes) > MOST_PRINTED:
        by_class = [f"biases of {len(classes)} classes {biases.min():+.2f} to {biases.max():+.2f}"]
    print(f"calibration: temperature {temperature:.2f}", *by_class)


if __name__ == "__main__":
    run_stage(main)
