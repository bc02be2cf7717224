"""Lists of single images: of doubtful labels, odd formats, and unlike all others."""

import numpy as np

from brainmri.audit.collection import Collection
from brainmri.audit.findings import Findings, Item, single_findings
from brainmri.audit.measuring import thumbnails
from brainmri.audit.mislabeled import LabelIssue
from brainmri.audit.outliers import novelties

BRIGHT = 60  # gray levels, of a background
SMALL_HEAD = 0.4  # of the image
NOVEL_IMAGES = 60


def find_mislabeled(collection: Collection, issues: list[LabelIssue]) -> Findings:
    """List the images whose labels the members' votes contradict."""
    items = [
        Item(
            issue.row,
            f"{issue.suggested} {issue.suggested_probability:.2f},"
            f" {collection.files[issue.row].class_name} {issue.label_probability:.2f}"
            f"{', confident' if issue.is_confident else ''}",
            {
                "confident": "yes" if issue.is_confident else "no",
                "suggested": issue.suggested,
                "suggested_probability": round(issue.suggested_probability, 4),
                "label_probability": round(issue.label_probability, 4),
            },
        )
        for issue in issues
    ]
    return single_findings(
        "mislabeled",
        "Images that look mislabeled",
        "Members of the last run that were not trained on the image vote for another class: first"
        " with confidence (confident learning, Northcutt et al. 2021), then the others, each the"
        " clearest first. Some are wrong labels, others are hard images: a person who can read"
        " them decides. Test images have no such votes; run with another split.fold for these.",
        items,
    )


def find_colored(collection: Collection) -> Findings:
    """List the images in color."""
    images = enumerate(collection.measurements)
    return single_findings(
        "colored",
        "Color",
        "Channels differ: arrows, color maps, photographs of screens.",
        [Item(row, image.mode) for row, image in images if image.is_colored],
    )


def find_bright(collection: Collection) -> Findings:
    """List the images with a bright background, the brightest first."""
    levels = [image.background for image in collection.measurements]
    rows = sorted(range(len(levels)), key=lambda row: (-levels[row], row))
    return single_findings(
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
    return single_findings(
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
    return single_findings(
        "outliers",
        "Images unlike all others",
        f"The {NOVEL_IMAGES} images with the highest error of their reconstruction from principal"
        " components of the others: photographs, other organs, rare planes and contrasts.",
        items,
    )
