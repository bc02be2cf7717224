"""Map the evidence for a finding in test images, and compare it with known tumors.

    dvc repro explain

Reads   models/ensemble.keras, data/rad, data/split.json; params: seed, phantom, ingest, explain
Writes  plots/explanations.png   correct, wrong and least confident images, with heat maps
        models/explanations.npz  `heat`: those maps (float32, n×h×w, log-odds in nats per 1 % of the
                                 image's area); `rows` of the store; `classes` explained; `scale`:
                                 the heat at the top of the color bar
        metrics/explain.json     how often the maps point at the tumors of synthetic slices
"""

import numpy as np

from brainmri.common.files import write_arrays, write_bytes, write_json
from brainmri.common.params import load_params
from brainmri.common.paths import ENSEMBLE, EXPLAIN_METRICS, EXPLANATION_PLOT, EXPLANATIONS
from brainmri.evaluation.decision_rule import decide
from brainmri.evaluation.decisions import positive_of
from brainmri.evaluation.explanations import choose_examples, draw_explanations, pointing_game
from brainmri.evaluation.results import ExplainMetrics
from brainmri.images.phantom_masks import tumor_masks
from brainmri.networks.runtime import start_tensorflow
from brainmri.sampling.files import read_split
from brainmri.store.metadata import read_metadata
from brainmri.store.reader import RadReader


def main() -> None:
    params, metadata = load_params(), read_metadata()
    rows = np.array(read_split(len(metadata["images"]))["test"])
    masks = tumor_masks(
        [metadata["images"][row] for row in rows], params.phantom.seed, params.ingest
    )
    with RadReader() as rad:
        images, labels = rad.images(rows), rad.labels[rows]
    start_tensorflow()
    from brainmri.models.ensemble import batch_predictor, load_ensemble, member_models
    from brainmri.models.heat_maps import explained_classes, heat_maps
    from brainmri.training.devices import configure_devices

    configure_devices(threads=1, seed=params.seed, precision="float32", replicas=1)
    model, about = load_ensemble(ENSEMBLE)
    probabilities = batch_predictor(model)(images)["probabilities"]
    positive = positive_of(about["decision"])
    predicted = decide(probabilities, about["decision"]["rule"], positive)
    confidence = probabilities[np.arange(len(rows)), predicted]
    targets = explained_classes(predicted, len(metadata["classes"]), positive)
    examples = choose_examples(labels, predicted, confidence, params.explain.images)
    mapped = sorted({*examples, *masks})
    members = member_models(model, about)
    maps = heat_maps(members, about["weights"], images[mapped], targets[mapped])
    heat_of = dict(zip(mapped, maps, strict=True))

    heat = np.array([heat_of[position] for position in examples], np.float32)
    heat = heat.reshape(-1, *images.shape[1:3])  # also of no images
    scale = about["heat_scale"]
    arrays = {"heat": heat, "scale": np.array(scale), "rows": rows[examples]}
    write_arrays(EXPLANATIONS, **arrays, classes=targets[examples])
    figure = draw_explanations(
        images[examples, ..., 0],
        labels[examples],
        predicted[examples],
        confidence[examples],
        heat,
        scale,
        outlines=[masks.get(position) for position in examples],
        classes=metadata["classes"],
        positive=about["decision"]["positive"],
    )
    write_bytes(EXPLANATION_PLOT, figure)

    summary: ExplainMetrics = {"images_drawn": len(examples)}
    if masks:
        of_tumors = np.stack([heat_of[position] for position in masks])
        game = pointing_game(of_tumors, np.stack([*masks.values()]))
        summary["pointing_game"] = game
        print(
            f"hottest point in the tumor: {game['accuracy']:.0%} of {game['images']} slices with a"
            f" tumor; heat in it: {game['energy']:.0%}; by chance {game['chance']:.0%}"
        )
    write_json(EXPLAIN_METRICS, summary)
