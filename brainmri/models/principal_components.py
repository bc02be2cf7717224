"""Principal components of thumbnails, and what they don't explain; without Keras."""

import numpy as np

COMPONENTS = 20
FOLDS = 5  # of groups, whose thumbnails are reconstructed by the components of the others
NOISE_LEVEL = 5.0  # gray levels: contrast well below it is not amplified


def principal_components(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the principal components, in descending order; see `fit_novelty`."""
    mean = thumbnails.mean(axis=0)
    centered = thumbnails - mean
    _, vectors = np.linalg.eigh(centered.T @ centered)
    return mean, vectors.T[::-1][: min(COMPONENTS, len(thumbnails) // 2)]


def reconstruction_error(
    thumbnails: np.ndarray, mean: np.ndarray, components: np.ndarray
) -> np.ndarray:
    """Compute the mean squared error of each thumbnail's reconstruction: float, shape (n,)."""
    centered = thumbnails - mean
    return np.mean((centered - centered @ components.T @ components) ** 2, axis=1)
