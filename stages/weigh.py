"""Gives each member a voting weight, from its out-of-bag predictions alone.

    dvc repro weigh

Reads   the members' out-of-bag predictions, data/bootstrap, data/rad/metadata.json; params: ensemble, weigh
Writes  models/weights.json
"""

import numpy as np

from stages.shared.files import read_json, write_json
from stages.shared.members import MODELS, read_predictions
from stages.shared.params import load_params
from stages.shared.rad import read_metadata
from stages.shared.running import run_stage
from stages.shared.voting import score, weights


def main() -> None:
    params = load_params()
    scheme, names = params.weigh.scheme, list(params.ensemble)
    metadata = read_metadata()
    classes = metadata["classes"]
    labels = np.array([classes.index(image["class"]) for image in metadata["images"]])

    scores = []
    for name in names:
        out_of_bag = read_json(f"data/bootstrap/{name}.json", "out_of_bag")["out_of_bag"]
        probabilities = read_predictions(MODELS / name / "out_of_bag.csv", out_of_bag, classes)
        scores.append(score(scheme, labels[out_of_bag], probabilities))
    shares = weights(scheme, np.array(scores))

    members = {name: {"score": one, "weight": float(share)} for name, one, share in zip(names, scores, shares, strict=True)}
    write_json("models/weights.json", {"scheme": scheme, "members": members})
    for name, member in members.items():
        print(f"{name}: score {member['score']:.4f}, weight {member['weight']:.4f}")


if __name__ == "__main__":
    run_stage(main)
