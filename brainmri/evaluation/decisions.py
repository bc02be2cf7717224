"""What is decided of an image: a class by a rule, and the prediction set; both from votes alone."""

from typing import NamedTuple

import numpy as np

from brainmri.common.errors import UserError
from brainmri.common.params import Decide
from brainmri.evaluation.calibration import calibrate
from brainmri.evaluation.decision_rule import (
    ARGMAX,
    DecisionRule,
    choose_rule,
    cost_rule,
    decide,
)
from brainmri.evaluation.patients import patients_out_of_bag, vote_by_patient
from brainmri.evaluation.prediction_sets import calibration_groups, p_values
from brainmri.evaluation.results import Calibration, Decision
from brainmri.evaluation.weighting import OutOfBagPredictions, vote_out_of_bag


class Decided(NamedTuple):
    """What is decided of images.

    Attributes
    ----------
    labels : ndarray of int, shape (n,)
        Classes by the decision rule.
    p_values : ndarray of float, shape (n, classes)
        See `prediction_sets.p_values`.
    """

    labels: np.ndarray
    p_values: np.ndarray


def fit_decision(
    labels: np.ndarray,
    groups: np.ndarray,
    patients: np.ndarray | None,
    out_of_bag: OutOfBagPredictions,
    weights: np.ndarray,
    calibration: Calibration,
    classes: list[str],
    positive: int | None,
    settings: Decide,
) -> tuple[Decision, str | None]:
    """Choose the decision rules, and collect what prediction sets are computed from.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (images,)
        Of all rows of the store.
    patients : ndarray of int, shape (images,), or None
        If they are known.
    out_of_bag : see `weighting.fit_voting_weights`
    weights : ndarray of float, shape (members,)
    calibration : Calibration
        Of the vote.
    classes : list of str
    positive : int, optional
        The positive class.
    settings : Decide

    Returns
    -------
    decision : Decision
    reason : str, optional
        Why a rule is not what was asked for; see `decision_rule.choose_rule`.

    Raises
    ------
    UserError
        If the rule or the prevalence needs a positive class, and there is none, or costs are of
        other classes.
    """
    if settings.prevalence is not None and positive is None:
        raise _needs_positive(f"decide.prevalence is {settings.prevalence:g}", classes)
    rows, votes = vote_out_of_bag(out_of_bag, weights, len(labels))
    of_images = labels[rows], calibrate(votes, **calibration), groups[rows]
    rule, reason = fit_rule(*of_images, classes, positive, settings)
    patient_rule = by_patient = None
    if patients is not None:
        voted = vote_by_patient(*of_images, patients[rows])
        patient_rule, patients_reason = fit_rule(
            voted.labels, voted.probabilities, voted.groups, classes, positive, settings
        )
        reason = reason or (patients_reason and f"by patient: {patients_reason}")
        of_patients = patients_out_of_bag(labels, groups, patients, out_of_bag)
        patient_labels, patient_groups, predictions = of_patients
        by_patient = calibration_groups(
            patient_labels, patient_groups, list(predictions.values()), weights, classes
        )
    decision: Decision = {
        "positive": None if positive is None else classes[positive],
        "rule": rule,
        "patient_rule": patient_rule,
        "error": settings.error,
        "prevalence": settings.prevalence,
        "images": calibration_groups(labels, groups, list(out_of_bag.values()), weights, classes),
        "patients": by_patient,
    }
    return decision, reason


def fit_rule(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    positive: int | None,
    settings: Decide,
) -> tuple[DecisionRule, str | None]:
    """Choose the rule of the parameters, a threshold on out-of-bag votes; see `choose_rule`.

    Raises
    ------
    UserError
        See `fit_decision`.
    """
    if settings.rule == "argmax":
        return ARGMAX, None
    if settings.rule == "costs":
        return cost_rule(settings.costs, classes), None
    if positive is None:
        raise _needs_positive(f"decide.rule is {settings.rule}", classes)
    is_sensitivity = settings.rule == "sensitivity"
    min_rate = settings.min_sensitivity if is_sensitivity else settings.min_specificity
    return choose_rule(settings.rule, labels, probabilities, groups, positive, min_rate)


def _needs_positive(setting: str, classes: list[str]) -> UserError:
    return UserError(
        f"{setting}, which needs a positive class; expected evaluate.positive to be one of"
        f" {', '.join(classes)}"
    )


def decide_votes(
    probabilities: np.ndarray,
    members: np.ndarray,
    weights: np.ndarray,
    decision: Decision,
    by_patient: bool = False,
) -> Decided:
    """Decide the votes on images, or on patients.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n, classes)
        The calibrated votes.
    members : ndarray of float, shape (members, n, classes)
        What the members predict.
    weights : ndarray of float, shape (members,)
        Of the vote.
    decision : Decision
    by_patient : bool
        Whether these are means over the slices of patients.
    """
    groups = decision["patients"] if by_patient else decision["images"]
    return Decided(
        labels=decide(probabilities, rule_of(decision, by_patient), positive_of(decision)),
        p_values=p_values(members, weights, groups or {name: [] for name in decision["images"]}),
    )


def rule_of(decision: Decision, by_patient: bool) -> DecisionRule:
    """Return the rule for images, or that for patients, if these were known in training."""
    return (by_patient and decision["patient_rule"]) or decision["rule"]


def positive_of(decision: Decision) -> int | None:
    """Return the number of the positive class, if there is one."""
    name = decision["positive"]
    return None if name is None else list(decision["images"]).index(name)


def describe_rule(decision: Decision) -> str:
    """Describe the rule by which votes are decided, and the positive class."""
    positive, rule = decision["positive"], decision["rule"]
    described = f"decision rule: {rule['name']}"
    if rule["threshold"] is not None:
        described += f", {positive!r} from a probability of {rule['threshold']:.3f} on"
        of_patients = decision["patient_rule"]
        if of_patients and of_patients["threshold"] is not None:
            described += f", of patients {of_patients['threshold']:.3f}"
    elif positive is not None:
        described += f"; positive class {positive!r}"
    return described
