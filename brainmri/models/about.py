"""What a user of an exported ensemble must know; it travels with the model as about.json."""

from typing import Annotated

from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from brainmri.evaluation.results import Calibration, EnsembleMetrics, Fraction, NoveltyWarnings

HASH_PREFIX = 16  # digits of a training image's SHA-256, enough to recognize the image


class Novelty(TypedDict):
    """The novelty above which the model warns, and how often it warns of test images."""

    warn_above: FiniteFloat
    of_test_images: NoveltyWarnings


class TrainingImages(TypedDict):
    """How to recognize the training images.

    `sha256` is the hash of all their SHA-256 hashes, sorted; `sha256_prefixes` are the first digits
    of each of them.
    """

    count: Annotated[int, Field(ge=1)]
    sha256: str
    sha256_prefixes: list[str]


class About(TypedDict):
    """about.json.

    `size` is the height and width of input images in pixels, `crop` whether they are cropped to the
    head first. `threshold` is on the probability of the second of two classes. `heat_scale` is the
    top of the color scale of heat maps, in nats per 1 % of the image's area.
    """

    classes: Annotated[list[str], Field(min_length=2)]
    size: Annotated[int, Field(ge=1)]
    crop: bool
    preprocessing: str
    weights: Annotated[dict[str, Fraction], Field(min_length=1)]
    weighting_scheme: str
    calibration: Calibration
    threshold: FiniteFloat | None
    heat_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    novelty: Novelty
    training_images: TrainingImages
    metrics: EnsembleMetrics
    disclaimer: str
