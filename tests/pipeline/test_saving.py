"""Saved models: equal bytes of equal models, and no code when one is loaded."""

import io
import zipfile

import keras
import numpy as np
import pytest

from brainmri.common.errors import UserError
from brainmri.networks.builders import NETWORKS, build_network
from brainmri.networks.saving import load_model, save_model

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 1), np.uint8)


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_models_are_equal_bytes(tmp_path, name):
    """And load in safe mode."""
    models = []
    for path in ("first.keras", "second.keras"):
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        models.append(build_network(name, 48, 2, 0.0, 1e-4, 0.3))
        save_model(models[-1], tmp_path / path)
    assert (tmp_path / "first.keras").read_bytes() == (tmp_path / "second.keras").read_bytes()
    loaded = load_model(tmp_path / "first.keras")
    expected = models[-1].predict(IMAGES, verbose=0)
    np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), expected, atol=1e-6)


def test_models_with_code_are_refused(tmp_path):
    """And what is no model."""
    inputs = keras.Input((4,))
    outputs = keras.layers.Lambda(lambda x: x + 1)(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "lambda.keras")
    (tmp_path / "text.keras").write_text("no model")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", "{}")
    (tmp_path / "empty.keras").write_bytes(archive.getvalue())
    for name in ("lambda", "text", "empty", "missing"):
        with pytest.raises(UserError, match=f"{name}.keras"):
            load_model(tmp_path / f"{name}.keras")
