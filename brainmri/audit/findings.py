"""The lists of an audit: each names images, in groups, and why they are on it."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from brainmri.audit.collection import Collection
from brainmri.audit.measuring import thumbnails
from brainmri.audit.mislabeled import LabelIssue
from brainmri.audit.outliers import novelties
from brainmri.audit.overlaps import (
    Pair,
    groups_across_classes,
    pairs_across_split,
    pairs_with,
    patients_across,
)

BRIGHT = 60  # gray levels, of a background
SMALL_HEAD = 0.4  # of the image
NOVEL_IMAGES = 60


@dataclass(frozen=True)
class Item:
    """An image on a list.

    Attributes
    ----------
    row : int
        Of its collection.
    note : str
        What the page shows below it.
    values : dict of str to str, int or float
        Further columns of the list's CSV file.
    is_other : bool
        Whether it is of the collection with which the audited one is compared.
    """

    row: int
    note: str = ""
    values: dict = field(default_factory=dict)
    is_other: bool = False


@dataclass(frozen=True)
class Group:
    """Images that belong together, and why."""

    items: list[Item]
    caption: str = ""


@dataclass(frozen=True)
class Findings:
    """A list of images.

    Attributes
    ----------
    name : str
        Of its CSV file, and its key in the metrics.
    title, text : str
        For the page.
    groups : list of Group
    rows : list of int
        The images that count, without those that are only shown beside them.
    is_grouped : bool
        Whether groups count, too.
    """

    name: str
    title: str
    text: str
    groups: list[Group]
    rows: list[int]
    is_grouped: bool = False


def list_findings(collection: Collection) -> list[Findings]:
    """Return all lists of a collection that need neither a run nor another collection.

    Those of a split, and of patients, are there only if these are known.
    """
    has_split = any(collection.splits)
    lists = [
        find_across_split(collection) if has_split else None,
        find_split_patients(collection) if has_split else None,
        find_across_classes(collection),
        find_mixed_patients(collection),
        find_copies(collection),
        find_near_duplicates(collection),
        find_colored(collection),
        find_bright(collection),
        find_margins(collection),
        find_outliers(collection),
    ]
    return [findings for findings in lists if findings]


def find_copies(collection: Collection) -> Findings:
    """List the images with equal pixels."""
    return _grouped(
        "exact_duplicates",
        "Exact duplicates",
        "Images with the same gray pixels, whatever their files.",
        [Group([Item(row) for row in rows], f"{len(rows)} images") for rows in collection.copies],
    )


def find_near_duplicates(collection: Collection) -> Findings:
    """List the groups of near duplicates, other than those of exact duplicates alone."""
    groups = []
    for rows in collection.near_duplicates:
        pixels = Counter(collection.measurements[row].pixels for row in rows)
        if len(pixels) > 1:
            copies = len(rows) - len(pixels)
            caption = f"{len(rows)} images" + (f", {copies} of them copies" if copies else "")
            groups.append(Group([Item(row) for row in rows], caption))
    return _grouped(
        "near_duplicates",
        "Near duplicates",
        f"Images whose perceptual hashes differ in at most {collection.bits} of 256 bits, also by"
        " way of others: the same image scaled or compressed again, or neighboring slices. Groups"
        " of exact duplicates alone are not repeated here. The pipeline keeps each group on one"
        " side of every split.",
        groups,
    )


def find_across_classes(collection: Collection) -> Findings:
    """List the groups of near duplicates of several classes."""
    groups = []
    for rows in groups_across_classes(collection):
        is_copy = len({collection.measurements[row].pixels for row in rows}) < len(rows)
        caption = _join_counts(Counter(collection.files[row].class_name for row in rows))
        if is_copy:
            caption += ", with copies"
        groups.append(Group([Item(row) for row in rows], caption))
    return _grouped(
        "across_classes",
        "The same image in several classes",
        "Near duplicates with different labels: at least one label is wrong, or the classes"
        " overlap. Exact duplicates in several classes are skipped by the pipeline.",
        groups,
    )


def find_across_split(collection: Collection) -> Findings:
    """List the images outside the training part with a near duplicate in it."""
    pairs = pairs_across_split(collection)
    return Findings(
        "across_split",
        "On both sides of the given split",
        "Each test image that has a near duplicate among the training images, beside the nearest of"
        " them: a metric on these images measures memory.",
        _pair_groups(pairs),
        [pair.row for pair in pairs],
    )


def find_split_patients(collection: Collection) -> Findings | None:
    """List the patients on several sides of the split; None if patients are unknown."""
    return _patients(
        collection,
        collection.splits,
        "patients_across_split",
        "Patients on both sides of the given split",
        "A test image of a patient of the training images is no independent test.",
    )


def find_mixed_patients(collection: Collection) -> Findings | None:
    """List the patients with images of several classes; None if patients are unknown."""
    return _patients(
        collection,
        collection.labels,
        "patients_across_classes",
        "Patients with images of several classes",
        "Right where the class is that of a slice; wrong where it is that of the patient.",
    )


def find_mislabeled(collection: Collection, issues: list[LabelIssue]) -> Findings:
    """List the images whose labels the members' votes contradict."""
    items = [
        Item(
            issue.row,
            f"{issue.suggested} {issue.suggested_probability:.2f},"
            f" {collection.files[issue.row].class_name} {issue.label_probability:.2f}",
            {
                "suggested": issue.suggested,
                "suggested_probability": round(issue.suggested_probability, 4),
                "label_probability": round(issue.label_probability, 4),
            },
        )
        for issue in issues
    ]
    return _single(
        "mislabeled",
        "Images that look mislabeled",
        "Members of the last run that were not trained on the image vote for another class with"
        " confidence (confident learning, Northcutt et al. 2021), the clearest first. Some are"
        " wrong labels, others are hard images: a person who can read them decides. Test images"
        " have no such votes.",
        items,
    )


def find_colored(collection: Collection) -> Findings:
    """List the images in color."""
    images = enumerate(collection.measurements)
    return _single(
        "colored",
        "Color",
        "Channels differ: arrows, color maps, photographs of screens.",
        [Item(row, image.mode) for row, image in images if image.is_colored],
    )


def find_bright(collection: Collection) -> Findings:
    """List the images with a bright background, the brightest first."""
    levels = [image.background for image in collection.measurements]
    rows = sorted(range(len(levels)), key=lambda row: (-levels[row], row))
    return _single(
        "bright_backgrounds",
        "Bright backgrounds",
        f"The median gray level of the image's rim is above {BRIGHT}.",
        [
            Item(row, f"level {levels[row]:.0f}", {"background": levels[row]})
            for row in rows
            if levels[row] > BRIGHT
        ],
    )


def find_margins(collection: Collection) -> Findings:
    """List the images of which the head is a small part, the smallest first."""
    fractions = [image.head for image in collection.measurements]
    rows = sorted(range(len(fractions)), key=lambda row: (fractions[row], row))
    return _single(
        "large_margins",
        "Large margins",
        f"The box around the head fills less than {SMALL_HEAD:.0%} of the image.",
        [
            Item(row, f"{fractions[row]:.0%}", {"head": round(fractions[row], 4)})
            for row in rows
            if fractions[row] < SMALL_HEAD
        ],
    )


def find_outliers(collection: Collection) -> Findings:
    """List the images that are most unlike all others."""
    errors = None
    if collection.files:
        errors = novelties(thumbnails(collection.measurements), collection.groups)
    items = []
    if errors is not None:
        order = np.lexsort((np.arange(len(errors)), -errors.round(6)))[:NOVEL_IMAGES]
        items = [
            Item(int(row), f"error {errors[row]:.2f}", {"error": round(float(errors[row]), 4)})
            for row in order
        ]
    return _single(
        "outliers",
        "Images unlike all others",
        f"The {NOVEL_IMAGES} images with the highest error of their reconstruction from principal"
        " components of the others: photographs, other organs, rare planes and contrasts.",
        items,
    )


def find_shared(collection: Collection, other: Collection, folder: str) -> Findings:
    """List the images with a near duplicate in another collection.

    Parameters
    ----------
    collection, other : Collection
    folder : str
        Of the other, as the user named it.
    """
    pairs = pairs_with(collection, other)
    skipped = f" {len(other.rejected)} of its files are no usable images." if other.rejected else ""
    return Findings(
        "against",
        f"Shared with {folder}",
        f"Images with a near duplicate among the {len(other.files)} images of this folder, beside"
        f" the nearest of them: they are no external test of what was trained on it.{skipped}",
        _pair_groups(pairs, is_other=True),
        [pair.row for pair in pairs],
    )


def _single(name: str, title: str, text: str, items: list[Item]) -> Findings:
    """Return a list of images that don't belong together."""
    groups = [Group([item]) for item in items]
    return Findings(name, title, text, groups, [item.row for item in items])


def _grouped(name: str, title: str, text: str, groups: list[Group]) -> Findings:
    rows = [item.row for group in groups for item in group.items]
    return Findings(name, title, text, groups, rows, is_grouped=True)


def _pair_groups(pairs: list[Pair], is_other: bool = False) -> list[Group]:
    return [
        Group(
            [
                Item(pair.row, values={"bits": pair.bits}),
                Item(pair.other, values={"bits": pair.bits}, is_other=is_other),
            ],
            f"{pair.bits} bits",
        )
        for pair in pairs
    ]


def _patients(
    collection: Collection, values: list, name: str, title: str, text: str
) -> Findings | None:
    if collection.patients is None:
        return None
    groups = []
    for rows in patients_across(collection, values):
        counts = _join_counts(Counter(values[row] for row in rows))
        caption = f"patient {collection.patients[rows[0]]}: {counts}"
        groups.append(Group([Item(row) for row in rows], caption))
    return _grouped(name, title, text, groups)


def _join_counts(counts: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
