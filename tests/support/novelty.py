"""Novelty, computed with scikit-learn and Pillow."""

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA


def thumbnails_by_hand(images: np.ndarray) -> np.ndarray:
    """Images scaled to 32×32 by Pillow, with zero mean and unit variance unless they are flat."""
    small = [
        Image.fromarray(image[..., 0].astype(np.float32)).resize(
            (32, 32), Image.Resampling.BILINEAR
        )
        for image in images
    ]
    flat = np.stack([np.asarray(image).ravel() for image in small])
    return (flat - flat.mean(axis=1, keepdims=True)) / np.sqrt(flat.var(axis=1, keepdims=True) + 25)


def unexplained_by_hand(thumbnails: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Mean squared error of the reconstruction from 20 principal components of training images."""
    components = PCA(min(20, len(training) // 2), svd_solver="full").fit(training)
    rebuilt = components.inverse_transform(components.transform(thumbnails))
    return np.mean((thumbnails - rebuilt) ** 2, axis=1)


def limit_by_hand(thumbnails: np.ndarray, groups: list[int], false_alarms: float) -> float:
    """The limit of the error, from five folds of whole groups, each held out in turn."""
    fold = np.array([sorted(set(groups)).index(group) % 5 for group in groups])
    errors = [
        unexplained_by_hand(thumbnails[fold == number], thumbnails[fold != number])
        for number in range(5)
    ]
    return np.quantile(np.concatenate(errors), 1 - false_alarms)
