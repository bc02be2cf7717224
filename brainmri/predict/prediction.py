"""The prediction of an ensemble for one image."""

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
    """

    path: Path
    image: DecodedImage
    probabilities: np.ndarray
    entropy: float
    mutual_information: float
    novelty: float

    @property
    def is_novel(self) -> bool:
        """Whether the image is unlike the training images."""
        return self.novelty > 1
