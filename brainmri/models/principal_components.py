"""Principal components of thumbnails, and what they don't explain; without Keras."""

import numpy as np

COMPONENTS = 20
FOLDS = 5  # of groups, of which one is held out at a time
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


def held_out_errors(thumbnails: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Compute each reconstruction's error with components of the other folds: float, shape (n,).

    Groups, numbered from 0, are held out as a whole.
    """
    fold_of = groups % FOLDS
    errors = np.zeros(len(thumbnails))
    for fold in np.unique(fold_of):
        is_held_out = fold_of == fold
        mean, components = principal_components(thumbnails[~is_held_out])
        errors[is_held_out] = reconstruction_error(thumbnails[is_held_out], mean, components)
    return errors
