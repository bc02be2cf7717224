"""A collection of images as an audit reads it: usable images with their measurements."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from brainmri.audit.measuring import Measurement
from brainmri.images.limits import ImageError
from brainmri.images.patients import number_patients
from brainmri.images.sources import SourceFile
from brainmri.sampling.groups import decode_hashes, near_duplicate_groups


@dataclass(frozen=True)
class Collection:
    """The usable images of a collection, and why its other files can't be used.

    Attributes
    ----------
    classes : list of str
    files : list of SourceFile, length n
    measurements : list of Measurement, length n
    rejected : list of dict
        `path` and `reason`.
    patients : list of int, length n, or None
        The number of each image's patient; None if they are unknown.
    bits : int
        Largest Hamming distance of near duplicates.
    """

    classes: list[str]
    files: list[SourceFile]
    measurements: list[Measurement]
    rejected: list[dict]
    patients: list[int] | None
    bits: int

    @cached_property
    def paths(self) -> list[str]:
        return [file.path for file in self.files]

    @cached_property
    def labels(self) -> list[str]:
        """The class of each image."""
        return [file.class_name for file in self.files]

    @cached_property
    def splits(self) -> list[str | None]:
        """The part of the given split that each image is in; None without one."""
        return [file.split for file in self.files]

    @cached_property
    def hashes(self) -> np.ndarray:
        """See `decode_hashes`: uint8, shape (n, 4, 32)."""
        return decode_hashes(image.perceptual_hashes for image in self.measurements)

    @cached_property
    def groups(self) -> np.ndarray:
        """The group of near duplicates of each image, numbered from 0: int, shape (n,)."""
        return near_duplicate_groups(self.hashes, self.bits)

    @cached_property
    def copies(self) -> list[list[int]]:
        """Groups of two or more images with the same gray pixels, the largest first."""
        return group_rows([image.pixels for image in self.measurements])

    @cached_property
    def near_duplicates(self) -> list[list[int]]:
        """Groups of two or more near duplicates or copies, the largest first."""
        return group_rows(self.groups.tolist())

    def count_classes(self, rows: list[int]) -> dict[str, int]:
        """Count images by class, in the order of the classes."""
        counts = Counter(self.files[row].class_name for row in rows)
        return {name: counts[name] for name in self.classes}


def build_collection(
    classes: list[str],
    files: list[SourceFile],
    measurements: list[Measurement | ImageError],
    rejected: list[dict],
    pattern: str | None,
    bits: int,
) -> Collection:
    """Build a collection of the files that can be used.

    Parameters
    ----------
    classes, files, rejected : see `Source`
    measurements : list of Measurement or ImageError
        Of each file.
    pattern : str or None
        `data.patient`.
    bits : see `Collection`

    Raises
    ------
    UserError
        If the pattern does not fit the paths.
    """
    usable, measured, reasons = [], [], list(rejected)
    for file, measurement in zip(files, measurements, strict=True):
        if isinstance(measurement, ImageError):
            reasons.append({"path": file.path, "reason": str(measurement)})
        else:
            usable.append(file)
            measured.append(measurement)
    patients = number_patients(usable, measured, pattern) if usable else None
    return Collection(classes, usable, measured, reasons, patients, bits)


def group_rows(keys: list) -> list[list[int]]:
    """Group the rows that share a key with others, the largest group first, then by first row."""
    rows_of: dict[object, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    groups = [rows for rows in rows_of.values() if len(rows) > 1]
    return sorted(groups, key=lambda rows: (-len(rows), rows[0]))
