"""Counts of a collection by class: of images, patients, sizes and pixel formats."""

import statistics
from collections import Counter
from typing import NamedTuple

import numpy as np

from brainmri.audit.collection import Collection

MAX_ROWS = 12  # of a table; the others are one more row
PARTS = ("training", "validation", "test")

Row = tuple[str | int, ...]


class Table(NamedTuple):
    """A table of the page: header, and rows whose first cell is a name."""

    header: list[str]
    rows: list[Row]


def count_images(collection: Collection) -> Table:
    """Count images of each class, by part of the given split, and patients."""
    parts = [part for part in PARTS if part in collection.splits]
    header = ["class", "images", *(f"{part} images" for part in parts)]
    if collection.patients is not None:
        header.append("patients")
    labels = np.array(collection.labels)
    rows_of = {name: np.flatnonzero(labels == name) for name in collection.classes}
    selections = [*rows_of.items(), ("all classes", range(len(labels)))]
    rows = []
    for name, own in selections:
        counts = Counter(collection.splits[row] for row in own)
        cells: list[str | int] = [name, len(own), *(counts[part] for part in parts)]
        if collection.patients is not None:
            cells.append(len({collection.patients[row] for row in own}))
        rows.append(tuple(cells))
    return Table(header, rows)


def count_sizes(collection: Collection) -> Table:
    """Count images of each size, by class, the most common first."""
    sizes = [f"{image.width}×{image.height}" for image in collection.measurements]
    return _count_by_class("width × height, pixels", sizes, collection)


def count_modes(collection: Collection) -> Table:
    """Count images of each pixel format, by class, the most common first."""
    modes = [image.mode for image in collection.measurements]
    return _count_by_class("pixel format", modes, collection)


def guessable_fractions(collection: Collection) -> tuple[float, float]:
    """Return the fraction of images whose class their pixel format gives away, and that by chance.

    Returns
    -------
    by_mode, by_chance : float
        Accuracy, on these same images, of naming the most common class of the image's pixel format,
        and of naming the most common class of all.
    """
    pairs = Counter(
        (image.mode, label)
        for image, label in zip(collection.measurements, collection.labels, strict=True)
    )
    largest: dict[str, int] = {}
    for (mode, _), count in pairs.items():
        largest[mode] = max(count, largest.get(mode, 0))
    images = len(collection.files)
    return sum(largest.values()) / images, max(Counter(collection.labels).values()) / images


def slices_per_patient(collection: Collection) -> list[float] | None:
    """Return the smallest, the median and the largest number of images of a patient."""
    if not collection.patients:
        return None
    counts = Counter(collection.patients).values()
    return [min(counts), statistics.median(counts), max(counts)]


def _count_by_class(title: str, values: list[str], collection: Collection) -> Table:
    counts = {value: Counter() for value in values}
    for value, label in zip(values, collection.labels, strict=True):
        counts[value][label] += 1
    ordered = sorted(counts, key=lambda value: (-counts[value].total(), value))
    others = sum((counts[value] for value in ordered[MAX_ROWS:]), Counter())
    shown = {value: counts[value] for value in ordered[:MAX_ROWS]}
    if others:
        shown[f"{len(ordered) - MAX_ROWS} others"] = others
    rows = [
        (value, *(by_class[name] for name in collection.classes), by_class.total())
        for value, by_class in shown.items()
    ]
    return Table([title, *collection.classes, "all classes"], rows)
