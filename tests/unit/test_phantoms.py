"""The built-in data: the same seed draws the same slices, with a mask of the tumor."""

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from brainmri.images import phantoms
from brainmri.images.phantoms import KINDS, draw, draw_phantom, to_png
from stages import phantom
from tests.support.checkout import ROOT

TUMORS = "glioma", "meningioma", "pituitary"
# By kind and number: height and width; mean levels of 4×4 parts; pixels of the tumor, and its
# middle. Together they take every branch.
EXPECTED = {
    ("no", 0): (
        (243, 175),
        "17.2 75.5 67.3 13.6 44.2 110.3 98.7 40.1 28.3 104.4 98.1 35.3 5.0 19.1 24.5 5.7",
        0,
        None,
    ),
    ("yes", 0): (
        (221, 205),
        "12.8 63.9 59.3 10.4 48.9 102.2 112.6 49.7 43.5 103.6 148.5 63.1 10.1 60.2 80.3 16.3",
        2405,
        (144.6, 144.3),
    ),
    ("glioma", 0): (
        (246, 170),
        "28.2 78.9 71.7 19.2 82.1 104.7 108.8 51.8 50.6 112.7 89.8 30.7 9.5 19.0 17.8 8.3",
        761,
        (156.0, 56.2),
    ),
    ("meningioma", 0): (
        (197, 177),
        "20.8 83.5 71.1 15.6 81.3 124.4 105.0 49.4 92.4 128.5 113.7 48.5 39.9 105.3 76.0 13.3",
        833,
        (149.1, 44.5),
    ),
    ("pituitary", 0): (
        (168, 251),
        "15.8 56.9 12.9 1.3 49.8 78.2 37.1 1.3 58.9 78.5 41.1 1.3 16.5 64.8 20.4 1.3",
        418,
        (89.8, 91.6),
    ),
    ("yes", 3): (
        (189, 249),
        "24.1 96.9 54.3 5.5 75.5 124.9 113.3 15.0 66.5 156.9 113.6 13.0 20.0 71.2 42.6 5.6",
        1173,
        (121.6, 103.3),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_have_their_tumors(kind):
    slices = [draw(kind, np.random.default_rng(seed)) for seed in range(8)]
    assert len({drawn.image.shape for drawn in slices}) > 4
    for drawn in slices:
        assert drawn.image.dtype == np.uint8
        assert drawn.image.max() > 80
        assert drawn.tumor.shape == drawn.image.shape
        fraction = drawn.tumor.mean()
        assert fraction == 0 if kind == "no" else 0.001 < fraction < 0.2


def test_tumors_change_levels():
    contrasts = []
    for seed in range(20):
        glioma = draw("glioma", np.random.default_rng(seed))
        levels = glioma.image.astype(float)
        brain = levels > 30
        difference = levels[glioma.tumor].mean() - levels[brain & ~glioma.tumor].mean()
        contrasts.append(abs(difference) / levels[brain].std())
    assert np.median(contrasts) > 0.5


def test_bytes_depend_on_kind_number_and_seed():
    def encode(kind: str, index: int, seed: int) -> bytes:
        return to_png(draw_phantom(kind, index, seed).image)

    assert encode("yes", 3, 0) == encode("yes", 3, 0)
    others = [("yes", 3, 0), ("yes", 4, 0), ("yes", 3, 1), ("no", 3, 0)]
    assert len({encode(*arguments) for arguments in others}) == 4


@pytest.mark.parametrize(("slice_id", "expected"), EXPECTED.items())
def test_built_in_slices_do_not_change(slice_id, expected):
    shape, levels, pixels, middle = expected
    drawn = draw_phantom(*slice_id, 3)
    assert drawn.image.shape == drawn.tumor.shape == shape
    rows = np.array_split(drawn.image.astype(float), 4, axis=0)
    means = [part.mean() for row in rows for part in np.array_split(row, 4, axis=1)]
    np.testing.assert_allclose(means, [float(word) for word in levels.split()], atol=0.1)
    assert abs(drawn.tumor.sum() - pixels) <= 2
    if pixels:
        np.testing.assert_allclose(np.argwhere(drawn.tumor).mean(axis=0), middle, atol=0.2)


def test_probabilities_of_tumors(monkeypatch):
    """Three in five are gliomas, one in four is a meningioma."""
    kinds = []
    ones, blank = np.ones((4, 4)), np.zeros((4, 4))

    def add_tumor(image, kind, *_):
        kinds.append(kind)
        return blank, blank.astype(bool)

    monkeypatch.setattr(phantoms, "_add_tumor", add_tumor)
    monkeypatch.setattr(phantoms, "gaussian_filter", lambda image, _: blank)
    monkeypatch.setattr(phantoms, "_head_coordinates", lambda *_: (ones, ones, 1))
    monkeypatch.setattr(phantoms, "_outline", lambda angle, *_: np.ones_like(angle))
    for seed in range(200):
        draw("yes", np.random.default_rng(seed))
    generators = [np.random.default_rng(seed) for seed in range(200)]
    assert kinds == [rng.choice(TUMORS, p=(0.6, 0.25, 0.15)) for rng in generators]


def test_fluid_is_dark_in_most_slices():
    tissues = [phantoms._tissue_levels(np.random.default_rng(seed)) for seed in range(1000)]
    is_dark = np.array([levels["fluid"] < levels["white"] for levels in tissues])
    assert 0.82 < is_dark.mean() < 0.88
    for tissue, expected in {
        "scalp": (0.75, 0.55),
        "fluid": (0.12, 0.85),
        "gray": (0.42, 0.52),
        "white": (0.6, 0.36),
    }.items():
        levels = np.array([levels[tissue] for levels in tissues])
        means = levels[is_dark].mean(), levels[~is_dark].mean()
        np.testing.assert_allclose(means, expected, atol=0.015)


def test_stage_draws_the_counts_of_params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    counts = {"no": 2, "yes": 0, "glioma": 0, "meningioma": 0, "pituitary": 3}
    params["phantom"] = {"seed": 5, "classes": counts}
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    phantom.main()
    slices = [("no", 0), ("no", 1), ("pituitary", 0), ("pituitary", 1), ("pituitary", 2)]
    files = sorted(path for path in Path("data/phantom").rglob("*") if path.is_file())
    expected_paths = [f"data/phantom/{kind}/{kind}-00{index}.png" for kind, index in slices]
    assert [str(path) for path in files] == expected_paths
    for path, (kind, index) in zip(files, slices, strict=True):
        rng = np.random.default_rng([5, 4 if kind == "pituitary" else 0, index])
        image = Image.open(io.BytesIO(path.read_bytes()))
        np.testing.assert_array_equal(image, draw(kind, rng).image)
