"""Draw the clearest test images of the last run, with the evidence for a finding in them.

    python -m docs.make_examples        (after `dvc repro`)

Reads   models/explanations.npz, data/rad, plots/data/predictions.csv
Writes  docs/examples.png
"""

from pathlib import Path

import numpy as np

from brainmri.common.files import write_bytes
from brainmri.common.params import load_params
from brainmri.common.paths import ENSEMBLE, EXPLANATIONS
from brainmri.evaluation.decision_rule import decide
from brainmri.evaluation.decisions import positive_of
from brainmri.evaluation.explanations import draw_explanations
from brainmri.images.phantom_masks import tumor_masks
from brainmri.networks.runtime import start_tensorflow
from brainmri.store.metadata import read_metadata
from brainmri.store.reader import RadReader

IMAGES = 4  # the first ones are correct, and of each class in turn
FIGURE = Path("docs/examples.png")


def main() -> None:
    params, metadata = load_params(), read_metadata()
    with np.load(EXPLANATIONS, allow_pickle=False) as arrays:
        rows, heat = arrays["rows"][:IMAGES], arrays["heat"][:IMAGES]
    with RadReader() as rad:
        images, labels = rad.images(rows), rad.labels[rows]
    start_tensorflow()
    from brainmri.models.ensemble import batch_predictor, load_ensemble

    model, about = load_ensemble(ENSEMBLE)
    probabilities = batch_predictor(model)(images)["probabilities"]
    predicted = decide(probabilities, about["decision"]["rule"], positive_of(about["decision"]))
    masks = tumor_masks(
        [metadata["images"][row] for row in rows], params.phantom.seed, params.ingest
    )
    figure = draw_explanations(
        images[..., 0],
        labels,
        predicted,
        probabilities[np.arange(IMAGES), predicted],
        heat,
        about["heat_scale"],
        [masks.get(position) for position in range(IMAGES)],
        about["classes"],
        about["decision"]["positive"],
    )
    write_bytes(FIGURE, figure)


if __name__ == "__main__":
    main()
