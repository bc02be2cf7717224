"""Voting weights that are fitted to the log loss of the out-of-bag vote."""

import numpy as np
import pytest

from brainmri.evaluation.fitted_weights import (
    deal_groups,
    fit_weights,
    measure_optimism,
    stacking_weights,
    true_class_probabilities,
    vote_losses,
)
from brainmri.evaluation.log_loss import log_loss
from brainmri.evaluation.voting import FITTED_SCHEMES, out_of_bag_vote
from brainmri.evaluation.weighting import weight_members

SEEDS = range(10)
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=FITTED_SCHEMES)
def scheme(request):
    return request.param


def random_members(seed: int, members: int = 5, images: int = 120) -> np.ndarray:
    """Return probabilities of true classes by members of unequal skill; NaN where in-bag."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(size=images)
    skill = rng.normal(0.5, 0.7, (members, 1))
    logits = skill - hardness + rng.normal(0, 1.2, (members, images))
    is_out_of_bag = rng.random((members, images)) < 0.4
    is_out_of_bag[rng.integers(0, members, images), np.arange(images)] = True
    return np.where(is_out_of_bag, 1 / (1 + np.exp(-logits)), np.nan)


def noise(seed: int, members: int = 5, images: int = 60) -> np.ndarray:
    """Return probabilities of members that know nothing; all images are out-of-bag."""
    return np.random.default_rng(seed).uniform(0.05, 0.95, (members, images))


def mean_loss(true_class: np.ndarray, weights: np.ndarray) -> float:
    return float(vote_losses(true_class, weights).mean())


def equal_weights(members: int) -> np.ndarray:
    return np.full(members, 1 / members)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_worse_than_equal_weights(scheme, seed):
    true_class = random_members(seed)
    weights = fit_weights(scheme, true_class)
    assert weights.sum() == pytest.approx(1)
    assert weights.min() > 0
    assert mean_loss(true_class, weights) <= mean_loss(true_class, equal_weights(5))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_worse_than_the_best_member(scheme, seed):
    """From the same start: the equal vote as 20 choices, then one member in all 100 rounds."""
    true_class = random_members(seed)
    single = [(20 * equal_weights(5) + 100 * chosen) / 120 for chosen in np.eye(5)]
    best = min(mean_loss(true_class, weights) for weights in single)
    assert mean_loss(true_class, fit_weights(scheme, true_class)) <= best


@pytest.mark.parametrize("seed", SEEDS)
def test_stacking_minimizes_the_penalized_log_loss(seed):
    true_class = random_members(seed)
    weights = stacking_weights(true_class)

    def penalized(values: np.ndarray) -> float:
        values = values / values.sum()
        return vote_losses(true_class, values).sum() - 3 * np.log(values).mean()

    for factors in (*(1 + 0.02 * np.eye(5)), *(1 - 0.02 * np.eye(5))):
        assert penalized(weights) < penalized(weights * factors)


def test_one_good_member_among_noise(scheme):
    true_class = noise(0, images=200)
    true_class[3] = 0.9
    weights = fit_weights(scheme, true_class)
    assert weights.argmax() == 3
    assert weights[3] > 0.8


def test_complements_are_both_chosen(scheme):
    """Two members that are each right where the other is not, and a third that is fair."""
    true_class = np.repeat([[0.95, 0.05], [0.05, 0.95], [0.45, 0.45]], 50, axis=1)
    weights = fit_weights(scheme, true_class)
    assert weights[0] == pytest.approx(weights[1], abs=0.01)
    assert weights[2] < 0.1


def test_equal_members_have_equal_weights(scheme):
    true_class = np.tile(noise(0, 1), (4, 1))
    np.testing.assert_allclose(fit_weights(scheme, true_class), 1 / 4)


def test_one_member(scheme):
    assert fit_weights(scheme, noise(0, 1)).tolist() == [1]


def test_images_of_one_member_each(scheme):
    """Whatever the weights, their votes are the same."""
    true_class = np.where(np.arange(60) % 5 == np.arange(5)[:, None], noise(0), np.nan)
    np.testing.assert_allclose(fit_weights(scheme, true_class), 1 / 5)


@pytest.mark.parametrize("seed", SEEDS)
def test_order_of_members_does_not_matter(scheme, seed):
    true_class = random_members(seed)
    order = np.random.default_rng(seed).permutation(5)
    expected = fit_weights(scheme, true_class)[order]
    np.testing.assert_allclose(fit_weights(scheme, true_class[order]), expected, atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_copies_of_members(scheme, seed):
    """A copy of each changes no vote; one of a single member, by its part of equal weights."""
    true_class = random_members(seed)
    weights = fit_weights(scheme, true_class)
    twice = fit_weights(scheme, np.concatenate([true_class, true_class]))
    np.testing.assert_allclose(twice[:5] + twice[5:], weights, atol=1e-4)
    six = fit_weights(scheme, np.concatenate([true_class, true_class[:1]]))
    together = np.append(six[0] + six[5], six[1:5])
    np.testing.assert_allclose(together, weights, atol=0.1)


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_of_a_single_class(scheme, classes):
    """Of members whose probabilities are 0 and 1 as well."""
    labels = np.zeros(6, int)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), 6)
    hard = np.eye(classes)[[0, 0, 1, 1, 0, 0]]
    out_of_bag = {
        "hard": (np.array([0, 1, 2, 3]), hard[:4]),
        "soft": (np.array([2, 3, 4]), probabilities[2:5]),
    }
    scores, weights = weight_members(labels, out_of_bag, scheme, 1)
    assert all(0 <= score <= 1 for score in scores)
    assert weights[1] > weights[0] > 0


def test_losses_are_those_of_the_out_of_bag_vote(scheme):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 30)
    rows = [np.sort(rng.choice(29, 12, replace=False)) for _ in range(4)]
    out_of_bag = {str(index): (rows[index], rng.dirichlet(np.ones(3), 12)) for index in range(4)}
    _, weights = weight_members(labels, out_of_bag, scheme, 1)
    probabilities = [predicted for _, predicted in out_of_bag.values()]
    votes = out_of_bag_vote(probabilities, rows, weights, 30)
    voted, true_class = true_class_probabilities(labels, out_of_bag.values())
    assert voted.tolist() == np.flatnonzero(~np.isnan(votes[:, 0])).tolist()
    assert mean_loss(true_class, weights) == pytest.approx(log_loss(labels[voted], votes[voted]))


def test_optimism_on_noise(scheme):
    """On the same images the log loss is below that of equal weights, on others above it.

    The cross-fitted one is as far above it as that of other images.
    """
    equal, labels, above = equal_weights(5), np.arange(60) % 2, []
    for seed in range(60):
        true_class, others = noise(seed), noise(seed + 1000, images=2000)
        weights = fit_weights(scheme, true_class)
        losses = measure_optimism(scheme, true_class, weights, labels, np.arange(60))
        assert losses["fitted"] == mean_loss(true_class, weights)
        same = np.array([losses["fitted"], losses["cross_fitted"]]) - mean_loss(true_class, equal)
        above.append([*same, mean_loss(others, weights) - mean_loss(others, equal)])
    fitted, cross_fitted, on_others = np.mean(above, axis=0)
    assert fitted < -0.02
    assert on_others > 0.005
    assert cross_fitted == pytest.approx(on_others, abs=0.01)


def test_groups_stay_in_a_fold(scheme):
    """Copies of an image in another fold would hide the optimism."""
    true_class, groups = np.repeat(noise(1, images=20), 4, axis=1), np.repeat(np.arange(20), 4)
    labels, weights = groups % 2, fit_weights(scheme, true_class)
    by_group = measure_optimism(scheme, true_class, weights, labels, groups)
    by_image = measure_optimism(scheme, true_class, weights, labels, np.arange(80))
    assert by_group["fitted"] == by_image["fitted"]
    assert by_group["cross_fitted"] > by_image["cross_fitted"] + 0.01


def test_each_fold_is_scored_with_weights_of_the_others(scheme):
    true_class, groups = random_members(2), np.arange(120) // 2
    labels = np.random.default_rng(0).integers(0, 3, 60)[groups]
    folds = deal_groups(labels, groups, 5)
    by_fold = {fold: fit_weights(scheme, true_class[:, folds != fold]) for fold in range(5)}
    expected = [mean_loss(true_class[:, [row]], by_fold[folds[row]]) for row in range(120)]
    weights = fit_weights(scheme, true_class)
    losses = measure_optimism(scheme, true_class, weights, labels, groups)
    assert losses["fitted"] == mean_loss(true_class, weights)
    assert losses["cross_fitted"] == pytest.approx(np.mean(expected))


def test_cross_fitting_without_other_images(scheme):
    """A single group leaves none to fit weights to."""
    true_class, labels = random_members(0), np.zeros(120, int)
    weights = fit_weights(scheme, true_class)
    losses = measure_optimism(scheme, true_class, weights, labels, np.zeros(120, int))
    assert losses["cross_fitted"] == pytest.approx(mean_loss(true_class, equal_weights(5)))


@pytest.mark.parametrize("images", [1, 3, 200])
def test_folds_have_whole_groups_and_all_classes(images):
    rng = np.random.default_rng(images)
    groups = rng.integers(0, 40, images) * 7
    labels = groups % 3
    folds = deal_groups(labels, groups, 5)
    for group in groups:
        assert len(set(folds[groups == group])) == 1
    for label in range(3):
        fold_of = {group: folds[groups == group][0] for group in groups[labels == label]}
        counts = np.bincount(list(fold_of.values()), minlength=5)
        assert np.ptp(counts) <= 1
