"""Results that later stages read again: what is in their JSON files, and whether it is what it should be."""

from pathlib import Path
from typing import Annotated, NotRequired

from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from stages.shared.errors import UserError
from stages.shared.files import read_json
from stages.shared.scratch import METRICS
from stages.shared.voting import ENSEMBLE, UNIFORM

WEIGHTS = Path("models/weights.json")
FIGURES = Path("metrics/ensemble.json")
EXPORTED = Path("metrics/export.json")
EXPLAINED = Path("metrics/explain.json")
Share = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[list[Share], Field(min_length=2, max_length=2)]  # None: see `stages.shared.metrics.MIN_GROUPS`
Count = Annotated[int, Field(ge=0)]


class OutOfBag(TypedDict):
    """What a member is worth on its out-of-bag images: accuracy, log loss in nats, and how many they are."""

    accuracy: Share
    log_loss: FiniteFloat
    images: Count


class MemberMetrics(TypedDict):
    """What is read of a member's file in metrics/members."""

    out_of_bag: OutOfBag


class Weight(TypedDict):
    """A member's score under the scheme, and its share in the vote."""

    score: FiniteFloat
    weight: Share


class Calibration(TypedDict):
    """See `stages.shared.voting.calibrate`."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    biases: list[FiniteFloat]


class Vote(TypedDict):
    """What models/weights.json tells: members by name, calibrations by voter, and for two classes a threshold."""

    scheme: str
    calibrations: dict[str, Calibration]
    threshold: NotRequired[FiniteFloat]
    members: dict[str, Weight]


class Headlines(TypedDict):
    """Metrics of a voter on the test images; log loss in nats. None: see `stages.shared.metrics.reportable`."""

    accuracy: Share
    balanced_accuracy: Share | None
    roc_auc: Share | None
    log_loss: FiniteFloat


class OfMember(Headlines):
    """The same of a member."""

    name: str


class Intervals(TypedDict):
    """The ends of figures' 95 % intervals."""

    accuracy: Interval | None
    balanced_accuracy: Interval | None
    roc_auc: Interval | None


class AtThreshold(TypedDict):
    """What the ensemble does where its probability of the second class counts from the threshold on."""

    threshold: FiniteFloat
    sensitivity: Share | None
    specificity: Share | None


class Figures(Headlines):
    """What metrics/ensemble.json tells; `recall` and `independent_groups`, the number of independent groups, are by class."""

    average_precision: Share | None
    f1: Share | None
    brier_score: FiniteFloat
    expected_calibration_error: Share
    recall: dict[str, Share | None]
    interval: Intervals
    independent_groups: Annotated[dict[str, Count], Field(min_length=2)]
    at_threshold: NotRequired[AtThreshold]
    test_images: Count
    best_member: OfMember
    mean_member: Headlines
    uniform_vote: Headlines


class Warned(TypedDict):
    """Of how many images a share is told."""

    images: Count
    share: Share


class Exported(TypedDict):
    """What metrics/export.json tells."""

    novelty_warnings_of_test_images: Warned


class PointingGame(TypedDict):
    """How well heat maps point at known tumors: see `stages.explain.pointing_game`.

    In which fraction of images the hottest point is in the tumor (accuracy), which fraction of all heat is (energy), and what
    either is by chance: the tumors' fraction of the images' area.
    """

    images: Count
    accuracy: Share
    energy: Share
    chance: Share


class Explained(TypedDict):
    """What metrics/explain.json holds; `pointing_game` only where tumors are known."""

    images_drawn: Count
    pointing_game: NotRequired[PointingGame]


def read_vote(names: list[str], classes: list[str]) -> Vote:
    """What `weigh` wrote for these members and classes.

    Raises
    ------
    UserError
        If the file is missing, is damaged, or is of other members or classes.
    """
    vote = read_json(WEIGHTS, Vote)
    biases = {len(calibration["biases"]) for calibration in vote["calibrations"].values()}
    if [*vote["members"]] != names or {*vote["calibrations"]} != {ENSEMBLE, UNIFORM, *names} or biases != {len(classes)}:
        raise UserError(f"{WEIGHTS} is not of these members and classes; run `dvc repro --force weigh`")
    return vote


def read_out_of_bag(name: str) -> OutOfBag:
    """What a member is worth on its out-of-bag images.

    Raises
    ------
    UserError
        If its file in metrics/members is missing or damaged.
    """
    return read_json(METRICS / f"{name}.json", MemberMetrics)["out_of_bag"]


def read_figures() -> Figures:
    """What the ensemble is worth on the test images.

    Raises
    ------
    UserError
        If the file is missing or damaged.
    """
    return read_json(FIGURES, Figures)
