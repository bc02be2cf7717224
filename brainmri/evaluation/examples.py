"""Which test images to show."""

import numpy as np


def choose_examples(labels: np.ndarray, probabilities: np.ndarray, images: int) -> list[int]:
    """Choose confident correct images, confident wrong ones and unsure ones, a third each.

    The correct ones are of each class in turn. Where too few images are predicted wrong, there are
    more unsure ones.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, classes)
    images : int
        How many to choose.

    Returns
    -------
    list of int
        Positions in `labels`.
    """
    by_confidence = np.argsort(-probabilities.max(axis=1), kind="stable")
    is_correct = (probabilities.argmax(axis=1) == labels)[by_confidence]
    correct, incorrect = by_confidence[is_correct], by_confidence[~is_correct]
    rank_in_class = np.array(
        [np.sum(labels[correct][:place] == label) for place, label in enumerate(labels[correct])]
    )
    third = -(-images // 3)
    chosen = correct[np.argsort(rank_in_class, kind="stable")][:third].tolist()
    chosen += incorrect[:third].tolist()
    others = [position for position in by_confidence[::-1].tolist() if position not in chosen]
    return (chosen + others)[:images]
