"""The prediction of an ensemble for an image, and for a patient."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainmri.images.decoding import DecodedImage


@dataclass(frozen=True)
class Prediction:
    """The prediction of an ensemble for an image.

    Attributes
    ----------
    path : Path
        Of the image file.
    image : DecodedImage
    probabilities : ndarray of float, shape (classes,)
        Calibrated; they sum to 1.
    entropy : float
        Of the mean vote of the members, before calibration, in nats.
    mutual_information : float
        Of vote and member, in nats: the part of the entropy that is due to their disagreement.
    novelty : float
        0 or more; above 1 the image is unlike the training images.
    label : int
        The class by the decision rule.
    prediction_set : tuple of int, or None
        The classes that the image may have; None if there were too few training images.
    members : ndarray of float, shape (members, classes)
        Probabilities of each member, not calibrated.
    """

    path: Path
    image: DecodedImage
    probabilities: np.ndarray
    entropy: float
    mutual_information: float
    novelty: float
    label: int
    prediction_set: tuple[int, ...] | None
    members: np.ndarray

    @property
    def is_novel(self) -> bool:
        """Whether the image is unlike the training images."""
        return self.novelty > 1


@dataclass(frozen=True)
class PatientPrediction:
    """The prediction of an ensemble for a patient.

    Attributes
    ----------
    number : int
        In this run, in order of first appearance, from 0; the identifier stays in the source.
    first : Path
        File of the first slice.
    slices : int
        Number of slices.
    probabilities : ndarray of float, shape (classes,)
        Mean of the slices'; see `brainmri.evaluation.patients.mean_by_patient`.
    novel : int
        Number of slices that are unlike the training images.
    label : int
        The class by the decision rule.
    prediction_set : tuple of int, or None
        The classes that the patient may have; None if there were too few training patients.
    """

    number: int
    first: Path
    slices: int
    probabilities: np.ndarray
    novel: int
    label: int
    prediction_set: tuple[int, ...] | None

    @property
    def is_novel(self) -> bool:
        """Whether all slices are unlike the training images."""
        return self.novel == self.slices
