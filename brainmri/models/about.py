"""What a user of an exported ensemble must know; it travels with the model as about.json."""

from typing import Annotated

from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from brainmri.evaluation.results import (
    Calibration,
    Decision,
    EnsembleMetrics,
    Fraction,
    NoveltyWarnings,
)
from brainmri.store.metadata import PerceptualHashes


class Novelty(TypedDict):
    """The novelty above which the model warns, and how often it warns of test images."""

    warn_above: FiniteFloat
    of_test_images: NoveltyWarnings


class TrainingImages(TypedDict):
    """How to recognize near duplicates of the training images.

    `sha256` is the hash of all their SHA-256 hashes, sorted. `perceptual_hashes` are
    those of each image, sorted; see `DecodedImage`. A near duplicate is no further than
    `near_duplicate_bits`; see `sampling.near_duplicates`. They are None if the run has
    `export.training_hashes: false`.
    """

    count: Annotated[int, Field(ge=1)]
    sha256: str
    near_duplicate_bits: Annotated[int, Field(ge=0, le=256)]
    perceptual_hashes: Annotated[list[PerceptualHashes], Field(min_length=1)] | None


class About(TypedDict):
    """about.json.

    `size` is the height and width of input images in pixels, `crop` whether they are cropped to the
    head first. `decision` is how votes are decided. `heat_scale` is the top of the color scale of
    heat maps, in nats per 1 % of the image's area.
    """

    classes: Annotated[list[str], Field(min_length=2)]
    size: Annotated[int, Field(ge=1)]
    crop: bool
    preprocessing: str
    weights: Annotated[dict[str, Fraction], Field(min_length=1)]
    weighting_scheme: str
    calibration: Calibration
    decision: Decision
    heat_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    novelty: Novelty
    training_images: TrainingImages
    metrics: EnsembleMetrics
    disclaimer: str
