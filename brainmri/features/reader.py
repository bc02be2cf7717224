"""Read the features that a frozen network has computed."""

import json
from pathlib import Path

import numpy as np

from brainmri.common.dependencies import hash_path
from brainmri.common.errors import UserError

FEATURES, ABOUT = "features.npy", "about.json"
VIEWS = {"plain": 1, "mirrored": 2, "zoomed": 6}  # numbers of views; see `with_tta`


class FeatureReader:
    """Read features by row of the store; the file is mapped into memory.

    Parameters
    ----------
    folder : str or Path
        As `update_features` writes it.
    images : int
        Number of images in the store.
    views : {"plain", "mirrored", "zoomed"}
        Those with which predictions are made.

    Raises
    ------
    UserError
        If a file is missing or damaged, or has other images.
    """

    def __init__(self, folder: str | Path, images: int, views: str):
        self._folder = Path(folder)
        path = self._folder / FEATURES
        try:
            self._features = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            raise UserError(
                f"{path} is missing or damaged; run `dvc repro --force features` to make it again"
            ) from None
        if self._features.ndim != 3 or len(self._features) != images:
            raise UserError(f"{path} has features of other images; run `dvc repro features`")
        self._of_prediction = VIEWS[views]

    def check_weights(self, file: str | Path) -> None:
        """Check that the features are of this file of weights, as it is now.

        DVC computes them again for changes in data/weights alone.

        Raises
        ------
        UserError
            If they are of others, or the file is missing.
        """
        try:
            about = json.loads((self._folder / ABOUT).read_bytes())
            digest = about["weights_file"]
        except (OSError, ValueError, KeyError, TypeError):
            digest = None
        if digest != hash_path(Path(file)):
            raise UserError(
                f"{self._folder} has features by other weights than those in {file};"
                " run `dvc repro --force features` to make them again"
            )

    @property
    def width(self) -> int:
        """The number of features."""
        return self._features.shape[2]

    def of_images(self, rows: list[int]) -> np.ndarray:
        """Return the features of images as they are: float32, shape (len(rows), k)."""
        return self._features[rows, 0]

    def of_views(self, rows: list[int]) -> np.ndarray:
        """Return those of all their views: float32, shape (len(rows), views, k)."""
        return self._features[rows]

    def of_prediction(self, rows: list[int]) -> np.ndarray:
        """Return those of the views with which predictions are made."""
        return self._features[rows, : self._of_prediction]
