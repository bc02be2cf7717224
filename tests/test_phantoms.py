"""The built-in data: the same seed draws the same slices, of every kind, varied, and with the tumour where it is said."""

import numpy as np
import pytest

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
