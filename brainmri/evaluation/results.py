"""JSON files that later stages read again: their types, and functions that read and check them."""

from typing import Annotated, NotRequired

from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from brainmri.common.errors import UserError
from brainmri.common.files import read_json
from brainmri.common.paths import ENSEMBLE_METRICS, MEMBER_METRICS, VOTING_WEIGHTS
from brainmri.evaluation.decision_rule import DecisionRule
from brainmri.evaluation.prediction_sets import CalibrationGroups
from brainmri.evaluation.voting import ENSEMBLE, UNIFORM

Fraction = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[list[Fraction], Field(min_length=2, max_length=2)]
Count = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class OutOfBag(TypedDict):
    """Metrics of a member on its out-of-bag images; log loss in nats."""

    accuracy: Fraction
    log_loss: FiniteFloat
    images: Count


class MemberMetrics(TypedDict):
    """What is read of metrics/members/MEMBER.json."""

    out_of_bag: OutOfBag


class MemberWeight(TypedDict):
    """A member's score under the weighting scheme, and its weight in the vote."""

    score: FiniteFloat
    weight: Fraction


class Calibration(TypedDict):
    """Parameters of `calibration.calibrate`."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    biases: list[FiniteFloat]


class VoteLogLoss(TypedDict):
    """Log loss of the out-of-bag vote before calibration, in nats; see `measure_optimism`."""

    fitted: FiniteFloat
    cross_fitted: FiniteFloat


class Decision(TypedDict):
    """How votes are decided.

    `positive` is the positive class, if there is one. `rule` is for the votes on images,
    `patient_rule` for those on patients, which are means over slices and spread less; None where
    patients are unknown. `prevalence` is that where the ensemble is to be applied, if it is given.
    `error` is the error rate of prediction sets, which are computed from `images`, for patients
    from `patients`, None where these are unknown.
    """

    positive: str | None
    rule: DecisionRule
    patient_rule: DecisionRule | None
    prevalence: Fraction | None
    error: Annotated[float, Field(gt=0, lt=1)]
    images: Annotated[CalibrationGroups, Field(min_length=2)]
    patients: Annotated[CalibrationGroups, Field(min_length=2)] | None


class VotingWeights(TypedDict):
    """models/weights.json: members by name, calibrations by voter, and how votes are decided.

    The calibrations of the votes include `weighting.sharpness_gain`.
    `out_of_bag_log_loss` only of schemes that fit the weights to it.
    """

    scheme: str
    calibrations: dict[str, Calibration]
    out_of_bag_log_loss: NotRequired[VoteLogLoss]
    members: dict[str, MemberWeight]
    decision: Decision


class Headlines(TypedDict):
    """Metrics of a voter on the test images; log loss in nats.

    None where `intervals.reportable` drops them.
    """

    accuracy: Fraction
    balanced_accuracy: Fraction | None
    roc_auc: Fraction | None
    log_loss: FiniteFloat


class NamedMetrics(Headlines):
    """The same of a member."""

    name: str


class Intervals(TypedDict):
    """95 % intervals; None: see `intervals.MIN_GROUPS`."""

    accuracy: Interval | None
    balanced_accuracy: Interval | None
    roc_auc: Interval | None


class PredictiveValues(TypedDict):
    """Positive and negative predictive value."""

    ppv: Fraction | None
    npv: Fraction | None


class RateIntervals(TypedDict):
    """95 % intervals of rates; None without images to count."""

    sensitivity: Interval | None
    specificity: Interval | None
    ppv: Interval | None
    npv: Interval | None


class BinaryRates(TypedDict):
    """Rates of the positive class against all others."""

    positive: str
    sensitivity: Fraction | None
    specificity: Fraction | None
    ppv: Fraction | None
    npv: Fraction | None
    interval: RateIntervals


class PredictiveIntervals(TypedDict):
    """95 % intervals of predictive values."""

    ppv: Interval | None
    npv: Interval | None


class AtPrevalence(PredictiveValues):
    """Predictive values at another prevalence than that of the images."""

    prevalence: Fraction
    interval: PredictiveIntervals


class RuleMetrics(TypedDict):
    """Metrics of the classes that a rule decides; rates only with a positive class."""

    name: str
    threshold: FiniteFloat | None
    accuracy: Fraction
    mean_cost: NotRequired[FiniteFloat]
    rates: NotRequired[BinaryRates]
    at_prevalence: NotRequired[AtPrevalence]


class SetRates(TypedDict):
    """See `decision_metrics.set_rates`."""

    coverage: Fraction | None
    mean_size: FiniteFloat | None
    decided: Fraction | None
    decided_accuracy: Fraction | None


class SetIntervals(TypedDict):
    """Their 95 % intervals."""

    coverage: Interval | None
    mean_size: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)] | None
    decided: Interval | None
    decided_accuracy: Interval | None


class SetRatesOfClass(SetRates):
    """The metrics of prediction sets of the images of a class."""

    interval: SetIntervals


class SetMetrics(TypedDict):
    """Metrics of prediction sets with an error rate; see `decision_metrics.set_rates`."""

    error: Fraction
    coverage: Fraction
    mean_size: FiniteFloat
    decided: Fraction
    decided_accuracy: Fraction | None
    interval: SetIntervals
    by_class: dict[str, SetRatesOfClass]


class Summary(Headlines):
    """Metrics of a vote; `recall` and numbers of groups are by class.

    `calibration_groups` are of training images; `prediction_sets` only where these are enough.
    """

    average_precision: Fraction | None
    f1: Fraction | None
    brier_score: FiniteFloat
    expected_calibration_error: Fraction
    recall: dict[str, Fraction | None]
    interval: Intervals
    independent_groups: Annotated[dict[str, Count], Field(min_length=2)]
    decision_rule: RuleMetrics
    calibration_groups: NotRequired[dict[str, Count]]
    prediction_sets: NotRequired[SetMetrics]


class PatientCounts(TypedDict):
    """Patients whose slices are of one class, and of several, who are not evaluated."""

    patients: Count
    mixed_patients: Count


class PatientMetrics(PatientCounts, Summary):
    """Metrics of the votes on patients."""


class EnsembleMetrics(Summary):
    """metrics/ensemble.json."""

    by_patient: NotRequired[
        Annotated[PatientMetrics | PatientCounts, Field(union_mode="left_to_right")]
    ]
    test_images: Count
    best_member: NamedMetrics
    mean_member: Headlines
    uniform_vote: Headlines


class NoveltyWarnings(TypedDict):
    """The fraction of images that get a novelty warning."""

    images: Count
    fraction: Fraction


class Difference(TypedDict):
    """The largest difference of each output of a file from those of the Keras model."""

    probabilities: NonNegative
    members: NonNegative
    novelty: NonNegative


class ExportMetrics(TypedDict):
    """metrics/export.json; `largest_difference` is of the test images, by format."""

    novelty_warnings_of_test_images: NoveltyWarnings
    largest_difference: dict[str, Difference]


class PointingGame(TypedDict):
    """See `explanations.pointing_game`."""

    images: Count
    accuracy: Fraction
    energy: Fraction
    chance: Fraction


class ExplainMetrics(TypedDict):
    """metrics/explain.json; `pointing_game` only where tumors are known."""

    images_drawn: Count
    pointing_game: NotRequired[PointingGame]


def read_voting_weights(names: list[str], classes: list[str]) -> VotingWeights:
    """Read models/weights.json.

    Raises
    ------
    UserError
        If the file is missing, is damaged, or is of other members or classes.
    """
    vote = read_json(VOTING_WEIGHTS, VotingWeights)
    voters = {ENSEMBLE, UNIFORM, *names}
    biases = {len(calibration["biases"]) for calibration in vote["calibrations"].values()}
    has_members = list(vote["members"]) == names and set(vote["calibrations"]) == voters
    weights = [member["weight"] for member in vote["members"].values()]
    is_fitting = has_members and fits_decision(vote["decision"], classes, weights)
    if not is_fitting or biases != {len(classes)}:
        raise UserError(
            f"{VOTING_WEIGHTS} is of other members or classes; run `dvc repro --force weigh`"
        )
    return vote


def fits_decision(decision: Decision, classes: list[str], weights: list[float]) -> bool:
    """Return whether a decision is of these classes, and of members with these voting weights."""
    positive = decision["positive"]
    if positive is not None and positive not in classes:
        return False
    sides = [len(classes)] * len(classes)  # of a matrix of costs
    for rule in filter(None, (decision["rule"], decision["patient_rule"])):
        if positive is None and rule["threshold"] is not None:
            return False
        if rule["costs"] is not None and [len(row) for row in rule["costs"]] != sides:
            return False
    tables = [table for table in (decision["images"], decision["patients"]) if table is not None]
    if any(list(table) != classes for table in tables):
        return False
    voters = {member for member, weight in enumerate(weights) if weight > 0}
    groups = [group for table in tables for listed in table.values() for group in listed]
    return all(voters.issuperset(group["out_of_bag"]) for group in groups)


def read_out_of_bag(name: str) -> OutOfBag:
    """Read a member's out-of-bag metrics.

    Raises
    ------
    UserError
        If its file in metrics/members is missing or damaged.
    """
    return read_json(MEMBER_METRICS / f"{name}.json", MemberMetrics)["out_of_bag"]


def read_ensemble_metrics() -> EnsembleMetrics:
    """Read metrics/ensemble.json.

    Raises
    ------
    UserError
        If the file is missing or damaged.
    """
    return read_json(ENSEMBLE_METRICS, EnsembleMetrics)
