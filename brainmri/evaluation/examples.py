"""Which test images to show."""

import numpy as np


def choose_examples(
    labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, images: int
) -> list[int]:
    """Choose confident correct images, confident wrong ones and unsure ones, a third each.

    The correct ones are of each class in turn. Where too few images are predicted wrong, there are
    more unsure ones.

    Parameters
    ----------
    labels, predicted : ndarray of int, shape (n,)
    confidence : ndarray of float, shape (n,)
        Probability of the predicted class.
    images : int
        How many to choose.

    Returns
    -------
    list of int
        Positions in `labels`.
    """
    by_confidence = np.argsort(-confidence, kind="stable")
    is_correct = (predicted == labels)[by_confidence]
    correct, incorrect = by_confidence[is_correct], by_confidence[~is_correct]
    rank_in_class = np.array(
        [np.sum(labels[correct][:place] == label) for place, label in enumerate(labels[correct])]
    )
    third = -(-images // 3)
    chosen = correct[np.argsort(rank_in_class, kind="stable")][:third].tolist()
    chosen += incorrect[:third].tolist()
    others = [position for position in by_confidence[::-1].tolist() if position not in chosen]
    return (chosen + others)[:images]
