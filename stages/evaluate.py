"""Let the members vote on the test images, and evaluate the vote.

    dvc repro            (then: dvc metrics show, dvc plots show)

Reads   the members' test predictions, histories and metrics, models/weights.json, data/split.json,
        data/rad; params: seed, ensemble, evaluate
Writes  metrics/ensemble.json
        plots/evaluation/   figures for people, as PNG
        plots/data/         what they show for DVC, as CSV; each voter's predictions
"""

import numpy as np

from brainmri.common.files import write_json
from brainmri.common.params import load_params
from brainmri.common.paths import ENSEMBLE_METRICS, MEMBERS
from brainmri.evaluation import plots
from brainmri.evaluation.predictions import read_predictions
from brainmri.evaluation.results import read_out_of_bag, read_voting_weights
from brainmri.evaluation.summary import Evaluation, calibrated_votes, describe_summary
from brainmri.sampling.files import read_split
from brainmri.store.metadata import image_labels, image_names, image_patients, read_metadata


def main() -> None:
    params = load_params()
    names, settings = list(params.ensemble), params.evaluate
    metadata = read_metadata()
    split = read_split(len(metadata["images"]))
    classes, rows = metadata["classes"], split["test"]
    patients = image_patients(metadata)
    vote = read_voting_weights(names, classes)
    predictions = {
        name: read_predictions(MEMBERS / name / "test.csv", rows, classes) for name in names
    }
    out_of_bag_loss = {name: read_out_of_bag(name)["log_loss"] for name in names}
    evaluation = Evaluation(
        classes=classes,
        rows=rows,
        labels=image_labels(metadata)[rows],
        groups=np.array(split["groups"])[rows],
        votes=calibrated_votes(predictions, vote),
        predictions=np.stack(list(predictions.values())),
        voting=vote,
        best=min(names, key=out_of_bag_loss.get),
        patients=None if patients is None else patients[rows],
    )
    summary = evaluation.summarize(settings.bins, settings.resamples, params.seed)
    write_json(ENSEMBLE_METRICS, summary)
    called = image_names(metadata["images"], settings.names)
    plots.write_tables(evaluation, called)
    plots.write_figures(evaluation, summary, called, settings.bins, settings.gallery)
    print(*describe_summary(summary), sep="\n")
