"""Compute the features of all images by the frozen networks of members, once for all members.

    dvc repro features

Reads   data/rad, data/weights; params: network, recipes, features, train.augment, train.views
Writes  data/features/NETWORK/
"""

import shutil

from brainmri.common.params import load_params
from brainmri.common.paths import FEATURES
from brainmri.networks.runtime import start_tensorflow


def main() -> None:
    params = load_params()
    networks = {
        network.features: network for network in params.networks.values() if network.is_frozen
    }
    FEATURES.mkdir(parents=True, exist_ok=True)
    for path in FEATURES.iterdir():
        if str(path) not in networks:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    if not networks:
        print("no member has a frozen network")
        return

    start_tensorflow()
    from brainmri.features.computation import update_features
    from brainmri.store.reader import RadReader
    from brainmri.training.devices import configure_devices

    configure_devices(threads=1, seed=0, precision="float32", replicas=1, optimize=True)
    with RadReader() as rad:
        for folder, network in networks.items():
            computed = update_features(network, params, rad)
            print(f"{folder}: {computed} images computed, {len(rad) - computed} known")
