"""The voters' predictions for the test images of a fold, as plots/data/votes.csv holds them."""

import csv
from dataclasses import dataclass

import numpy as np

from brainmri.evaluation.voting import ENSEMBLE


@dataclass(frozen=True)
class Votes:
    """Test images, and the class probabilities that each voter gives them.

    Attributes
    ----------
    groups : ndarray of int, shape (n,)
        Group of near duplicates of each image.
    labels : ndarray of int, shape (n,)
    classes : list of str
    probabilities : dict of str to ndarray of float, shape (n, classes)
        By voter.
    """

    groups: np.ndarray
    labels: np.ndarray
    classes: list[str]
    probabilities: dict[str, np.ndarray]


def parse_votes(text: str) -> Votes:
    """Parse the content of votes.csv; see `evaluation.plots.write_tables`."""
    header, *lines = csv.reader(text.splitlines())
    classes = [column.removeprefix("probability of ") for column in header[4:]]
    lines_of: dict[str, list[list[str]]] = {}
    for line in lines:
        lines_of.setdefault(line[0], []).append(line)
    probabilities = {
        voter: np.array([line[4:] for line in voter_lines], float)
        for voter, voter_lines in lines_of.items()
    }
    groups = np.array([line[2] for line in lines_of[ENSEMBLE]], int)
    labels = np.array([classes.index(line[3]) for line in lines_of[ENSEMBLE]])
    return Votes(groups, labels, classes, probabilities)


def pool_votes(folds: list[Votes]) -> Votes:
    """Join the test images of several folds; only voters that all folds have are kept."""
    voters = [
        voter
        for voter in folds[0].probabilities
        if all(voter in votes.probabilities for votes in folds)
    ]
    return Votes(
        groups=np.concatenate([votes.groups for votes in folds]),
        labels=np.concatenate([votes.labels for votes in folds]),
        classes=folds[0].classes,
        probabilities={
            voter: np.concatenate([votes.probabilities[voter] for votes in folds])
            for voter in voters
        },
    )
