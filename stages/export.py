"""Join members, voting weights and calibration in one model, which needs nothing of this project.

    dvc repro export

Reads   models/members, models/weights.json, data/rad, data/split.json, metrics/ensemble.json;
        params: seed, ensemble, ingest, split.near_duplicate_bits, train.views, export
Writes  models/ensemble.keras   for `keras.models.load_model`; about.json in it is for its users
        models/exported/        the same in the other formats of `export.formats`, and about.json
        metrics/export.json     how often novelty warns of test images, and the largest difference
                                of each format from the Keras model on them
"""

from brainmri.common.files import write_json
from brainmri.common.params import load_params
from brainmri.common.paths import EXPORT_METRICS
from brainmri.evaluation.results import read_voting_weights
from brainmri.models.formats import check_packages
from brainmri.networks.runtime import start_tensorflow
from brainmri.sampling.files import read_split
from brainmri.store.metadata import read_metadata


def main() -> None:
    params = load_params()
    check_packages(params.export.formats)
    metadata = read_metadata()
    split = read_split(len(metadata["images"]))
    vote = read_voting_weights(list(params.ensemble), metadata["classes"])

    start_tensorflow()
    from brainmri.models.export import export_ensemble
    from brainmri.training.devices import configure_devices

    configure_devices(threads=1, seed=params.seed, precision="float32", replicas=1)
    metrics = export_ensemble(params, metadata, split, vote)
    write_json(EXPORT_METRICS, metrics)
    warnings = metrics["novelty_warnings_of_test_images"]
    warned = round(warnings["fraction"] * warnings["images"])
    print(f"one model of {len(params.ensemble)} members;", end=" ")
    print(f"novelty warnings of {warned} of {warnings['images']} test images")
    for name, difference in metrics["largest_difference"].items():
        largest = difference["probabilities"]
        print(f"{name}: probabilities differ from the Keras model's by {largest:.1g} at most")
