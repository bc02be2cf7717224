"""Lists of images, and of patients, that are there twice."""

from collections import Counter

from brainmri.audit.collection import Collection
from brainmri.audit.findings import Findings, Group, Item, grouped_findings, pair_groups
from brainmri.audit.overlaps import (
    groups_across_classes,
    pairs_across_split,
    pairs_with,
    patients_across,
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
        pair_groups(pairs, is_other=True),
        [pair.row for pair in pairs],
    )


def find_across_split(collection: Collection) -> Findings:
    """List the images outside the training part with a near duplicate in it."""
    pairs = pairs_across_split(collection)
    return Findings(
        "across_split",
        "On both sides of the given split",
        "Each test image that has a near duplicate among the training images, beside the nearest of"
        " them: a metric on these images measures memorization.",
        pair_groups(pairs),
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


def find_across_classes(collection: Collection) -> Findings:
    """List the groups of near duplicates of several classes."""
    groups = []
    for rows in groups_across_classes(collection):
        is_copy = len({collection.measurements[row].pixels for row in rows}) < len(rows)
        caption = _join_counts(Counter(collection.files[row].class_name for row in rows))
        if is_copy:
            caption += ", with copies"
        groups.append(Group([Item(row) for row in rows], caption))
    return grouped_findings(
        "across_classes",
        "The same image in several classes",
        "Near duplicates with different labels: at least one label is wrong, or the classes"
        " overlap. Exact duplicates in several classes are skipped by the pipeline.",
        groups,
    )


def find_mixed_patients(collection: Collection) -> Findings | None:
    """List the patients with images of several classes; None if patients are unknown."""
    return _patients(
        collection,
        collection.labels,
        "patients_across_classes",
        "Patients with images of several classes",
        "As expected if classes are those of slices; an error if they are those of patients.",
    )


def find_copies(collection: Collection) -> Findings:
    """List the images with equal pixels."""
    return grouped_findings(
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
    return grouped_findings(
        "near_duplicates",
        "Near duplicates",
        f"Images whose perceptual hashes differ in at most {collection.bits} of 256 bits (three"
        " quarters of it if one of the two is flipped), also by way of others: the same image"
        " scaled, compressed again or flipped, or neighboring slices. Groups of exact duplicates"
        " alone are not repeated here. The pipeline keeps each group on one side of every split.",
        groups,
    )


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
    return grouped_findings(name, title, text, groups)


def _join_counts(counts: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
