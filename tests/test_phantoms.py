"""The built-in data: the same seed draws the same slices, of every kind, varied, and with the tumour where it is said."""

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from PIL import Image

from stages import phantom
from stages.shared import phantoms
from stages.shared.phantoms import KINDS, draw, draw_numbered, to_png


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_have_the_tumours_that_they_promise(kind):
    slices = [draw(kind, np.random.default_rng(seed)) for seed in range(8)]
    assert len({one.image.shape for one in slices}) > 4
    for one in slices:
        assert one.image.dtype == np.uint8
        assert one.image.max() > 80
        assert one.tumour.shape == one.image.shape
        share = one.tumour.mean()
        assert share == 0 if kind == "no" else 0.001 < share < 0.2


def test_tumours_change_the_picture_where_they_are():
    contrasts = []
    for seed in range(20):
        one = draw("glioma", np.random.default_rng(seed))
        levels = one.image.astype(float)
        brain = levels > 30
        contrasts.append(abs(levels[one.tumour].mean() - levels[brain & ~one.tumour].mean()) / levels[brain].std())
    assert np.median(contrasts) > 0.5


def test_bytes_depend_on_kind_number_and_seed_alone():
    def drawn(*one):
        return to_png(draw_numbered(*one).image)

    assert drawn("yes", 3, 0) == drawn("yes", 3, 0)
    assert len({drawn(*one) for one in (("yes", 3, 0), ("yes", 4, 0), ("yes", 3, 1), ("no", 3, 0))}) == 4


# Height and width; mean levels of 4×4 parts; pixels of the tumour, and its middle. Together they take every branch.
DRAWN = {
    ("no", 0): ((243, 175), "17.2 75.5 67.3 13.6 44.2 110.3 98.7 40.1 28.3 104.4 98.1 35.3 5.0 19.1 24.5 5.7", 0, None),
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


@pytest.mark.parametrize(("number", "drawn"), DRAWN.items())
def test_the_built_in_slices_stay_what_they_are(number, drawn):
    shape, levels, pixels, middle = drawn
    picture = draw_numbered(*number, 3)
    assert picture.image.shape == picture.tumour.shape == shape
    parts = [np.array_split(row, 4, axis=1) for row in np.array_split(picture.image.astype(float), 4, axis=0)]
    np.testing.assert_allclose([part.mean() for row in parts for part in row], [float(word) for word in levels.split()], atol=0.1)
    assert abs(picture.tumour.sum() - pixels) <= 2
    if pixels:
        np.testing.assert_allclose(np.argwhere(picture.tumour).mean(axis=0), middle, atol=0.2)


def test_of_the_tumours_three_in_five_are_gliomas_and_one_in_four_a_meningioma(monkeypatch):
    kinds = []
    monkeypatch.setattr(phantoms, "_add_tumour", lambda image, kind, *_: kinds.append(kind) or blank)
    monkeypatch.setattr(phantoms, "gaussian_filter", lambda image, _: np.zeros((4, 4)))
    monkeypatch.setattr(phantoms, "_head_coordinates", lambda *_: (np.ones((4, 4)), np.ones((4, 4)), 1))
    monkeypatch.setattr(phantoms, "_outline", lambda angle, *_: np.ones_like(angle))
    blank = np.zeros((4, 4)), np.zeros((4, 4), bool)
    for seed in range(200):
        draw("yes", np.random.default_rng(seed))
    tumours = "glioma", "meningioma", "pituitary"
    assert kinds == [np.random.default_rng(seed).choice(tumours, p=(0.6, 0.25, 0.15)) for seed in range(200)]


def test_fluid_is_darkest_in_most_slices():
    tissues = [phantoms._contrast(np.random.default_rng(seed)) for seed in range(1000)]
    dark = np.array([levels["fluid"] < levels["white"] for levels in tissues])
    assert 0.82 < dark.mean() < 0.88
    for tissue, levels in {"scalp": (0.75, 0.55), "fluid": (0.12, 0.85), "grey": (0.42, 0.52), "white": (0.6, 0.36)}.items():
        drawn = np.array([levels[tissue] for levels in tissues])
        np.testing.assert_allclose((drawn[dark].mean(), drawn[~dark].mean()), levels, atol=0.015)


def test_the_stage_draws_so_many_of_each_kind_with_its_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["phantom"] = {"seed": 5, "classes": {"no": 2, "yes": 0, "glioma": 0, "meningioma": 0, "pituitary": 3}}
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    phantom.main()
    names = [("no", 0), ("no", 1), ("pituitary", 0), ("pituitary", 1), ("pituitary", 2)]
    files = sorted(path for path in Path("data/phantom").rglob("*") if path.is_file())
    assert [str(path) for path in files] == [f"data/phantom/{kind}/{kind}-00{index}.png" for kind, index in names]
    for path, (kind, index) in zip(files, names, strict=True):
        expected = draw(kind, np.random.default_rng([5, 4 if kind == "pituitary" else 0, index])).image
        np.testing.assert_array_equal(Image.open(io.BytesIO(path.read_bytes())), expected)
