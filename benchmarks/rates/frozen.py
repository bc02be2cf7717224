"""Measure five members with a frozen network: on features computed once, and computed each epoch.

    python -m benchmarks.rates.frozen       (where the pipeline has run)

The network is MobileNetV2 of Keras Applications with random weights, which take as long as others.
All times are CPU times, since features are computed on all cores, and a member on one. What every
epoch costs without features is extrapolated from a short training and a longer one. The last line
printed is JSON: members a minute of a core.
"""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from brainmri.networks.runtime import start_tensorflow

start_tensorflow()

from benchmarks.commands import cpu_time
from brainmri.common.params import Member, Network, Params, load_params
from brainmri.features.computation import update_features
from brainmri.networks.applications import application_base
from brainmri.networks.builders import build_network
from brainmri.networks.pretrained import load_pretrained
from brainmri.sampling.files import read_sample, read_split
from brainmri.store.reader import RadReader
from brainmri.training.budget import number_of_epochs
from brainmri.training.devices import configure_devices
from brainmri.training.fitting import fit
from brainmri.training.member import train_on_features

NAME = "mobilenet-v2"
MEMBERS = 5
CLASSES = 2
SHORT, LONG = 1, 5  # epochs


def main() -> None:
    params = load_params()
    configure_devices(threads=1, seed=0, precision="float32", replicas=1, optimize=True)
    name, member = next(iter(params.ensemble.items()))
    with TemporaryDirectory(dir=".") as folder, RadReader() as rad:
        weights = Path(folder) / "base.weights.h5"
        application_base(NAME, rad.shape[1], None).save_weights(weights)
        network = Network(name=NAME, weights=str(weights), freeze=True)
        member = member.model_copy(update={"network": network})
        train = params.train.model_copy(update={"epochs": "auto"})
        params = params.model_copy(update={"train": train})
        sample = read_sample(name, read_split(len(rad))["training"])
        once = cpu_time(lambda: update_features(network, params, rad))
        each = cpu_time(lambda: train_on_features(rad, *sample, CLASSES, params, member))
        every_epoch = measure_without_features(rad, sample, params, member)
        epochs = number_of_epochs(len(sample[0]), train, member)
        shutil.rmtree(network.features)
    seconds = once + MEMBERS * each
    rates = {
        "here": 60 * MEMBERS / seconds,
        "against": 60 / (epochs * every_epoch),
    }
    print(f"features {once:.1f} s, each member {each:.1f} s; an epoch without {every_epoch:.1f} s")
    print(json.dumps(rates))


def measure_without_features(
    rad: RadReader, sample: tuple[list[int], list[int]], params: Params, member: Member
) -> float:
    """Measure the seconds of an epoch that computes the features again."""
    model = build_network(NAME, rad.shape[1], CLASSES, member.l1, member.l2, member.dropout)
    load_pretrained(model, member.network)

    def train(epochs: int) -> None:
        member_of = member.model_copy(update={"epochs": epochs})
        fit(model, rad, *sample, CLASSES, params.train, member_of)

    short_time = cpu_time(lambda: train(SHORT))
    return (cpu_time(lambda: train(LONG)) - short_time) / (LONG - SHORT)


if __name__ == "__main__":
    main()
