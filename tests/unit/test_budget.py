"""The number of epochs of a member."""

import copy

import pytest

from brainmri.common.params import Params, derive_ensemble, validate
from brainmri.training.budget import number_of_epochs
from tests.support.project import assign, scratch_params

CONTENT = scratch_params()
SCRATCH = {"name": "residual", "weights": "none", "freeze": False}
FINE_TUNED = {"name": "efficientnet-lite0", "weights": "imagenet", "freeze": False}
FEW = 202  # images of a fold of the real ones


def epochs_of(images: int, network: dict = SCRATCH, train="auto", own=None) -> int:
    """Return the epochs of a member with a recipe's own network and epochs."""
    content = copy.deepcopy(CONTENT)
    assign(content, {"train__epochs": train, "recipes__base__network": network})
    assign(content, {"recipes__base__epochs": own})
    content["ensemble"] = derive_ensemble(validate(content, Params))
    params = validate(content, Params)
    return number_of_epochs(images, params.train, params.ensemble["member-00"])


@pytest.mark.parametrize(("network", "most"), [(SCRATCH, 48), (FINE_TUNED, 14)])
def test_up_to_1100_images_get_all_epochs(network, most):
    assert {epochs_of(images, network) for images in (1, 40, FEW, 1022, 1100)} == {most}


@pytest.mark.parametrize(("network", "most"), [(SCRATCH, 48), (FINE_TUNED, 14)])
def test_more_images_get_as_many_steps(network, most):
    """And each is seen three times, however many there are."""
    assert epochs_of(2 * 1100, network) == most / 2
    assert epochs_of(3 * 1100, network) == round(most / 3)
    assert epochs_of(16 * 1100, network) == 3
    assert epochs_of(10**9, network) == 3
    numbers = [epochs_of(images, network) for images in range(1000, 9000, 300)]
    assert numbers == sorted(numbers, reverse=True)


def test_only_fine_tuning_takes_fewer_epochs():
    """Whatever its weights; the last layer of a frozen network takes as many as other networks."""
    for weights in ("imagenet", "w/own.h5"):
        assert epochs_of(FEW, {**FINE_TUNED, "weights": weights}) == 14
        assert epochs_of(FEW, {**FINE_TUNED, "weights": weights, "freeze": True}) == 48
    assert epochs_of(FEW, {**FINE_TUNED, "weights": "none"}) == 48


@pytest.mark.parametrize("network", [SCRATCH, FINE_TUNED])
def test_numbers_are_taken_as_they_are(network):
    for images in (1, FEW, 10**6):
        assert epochs_of(images, network, train=500) == 500
        assert epochs_of(images, network, own=500) == 500


def test_epochs_of_the_recipe_come_first():
    assert epochs_of(FEW, train=5, own=9) == 9
    assert epochs_of(FEW, train="auto", own=1) == 1
    assert epochs_of(FEW, train=5, own="auto") == 48
    assert epochs_of(FEW, train=5, own=None) == 5
