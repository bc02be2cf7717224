"""Metadata of the stored images: types of data/rad/metadata.json, and functions that read it."""

from typing import Annotated, Literal, NotRequired

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from brainmri.common.errors import UserError
from brainmri.common.files import read_json
from brainmri.common.paths import METADATA
from brainmri.store.format import REBUILD

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
PerceptualHashes = Annotated[list[Hash], Field(min_length=4, max_length=4)]
SHORT_HASH = 12  # digits
# Metadata of an image; see `brainmri.images.decoding.DecodedImage`. `split`: of given test sets;
# `patient`: its number in this store, where patients are known. A call, since a key is `class`
Image = TypedDict(
    "Image",
    {
        "path": str,
        "class": str,
        "sha256": Hash,
        "perceptual_hashes": PerceptualHashes,
        "width": int,
        "height": int,
        "mode": str,
        "levels": Annotated[list[float], Field(min_length=2, max_length=2)],
        "split": NotRequired[Literal["training", "test"]],
        "patient": NotRequired[Annotated[int, Field(ge=0)]],
    },
)


class Metadata(TypedDict):
    """data/rad/metadata.json.

    Attributes
    ----------
    classes : list of str
        Names.
    images : list of Image
        One for each row of the store.
    rejected : list of dict
        `path` and `reason` of each skipped file. The paths need not be UTF-8.
    """

    classes: Annotated[list[str], Field(min_length=2)]
    images: Annotated[list[Image], Field(min_length=2)]
    rejected: list[dict]


def image_names(images: list[Image], names: Literal["hashed", "plain"]) -> list[str]:
    """Return what results call images: the start of each SHA-256, or the paths."""
    if names == "plain":
        return [image["path"] for image in images]
    return [image["sha256"][:SHORT_HASH] for image in images]


def read_metadata() -> Metadata:
    """Read data/rad/metadata.json.

    Raises
    ------
    UserError
        If the file is missing, is damaged, has a path that leads out of the source, has an image
        of a class that it does not list, or has the patients or the split of some images only.
    """
    metadata = read_json(METADATA, Metadata)
    paths = [image["path"] for image in metadata["images"]]
    if outside := [path for path in paths if path.startswith("/") or ".." in path.split("/")]:
        raise UserError(
            f"{METADATA} has a path that leads out of data.source: {outside[0]!r}; {REBUILD}"
        )
    for key in ("split", "patient"):
        if len({key in image for image in metadata["images"]}) > 1:
            raise UserError(f"{METADATA} has a {key} of some images only; {REBUILD}")
    if unlisted := {image["class"] for image in metadata["images"]} - {*metadata["classes"]}:
        raise UserError(f"{METADATA} does not list the class {min(unlisted)!r}; {REBUILD}")
    return metadata


def image_labels(metadata: Metadata) -> np.ndarray:
    """Return the label of each image, the index of its class: int, shape (images,)."""
    label_of = {name: label for label, name in enumerate(metadata["classes"])}
    return np.array([label_of[image["class"]] for image in metadata["images"]])


def image_patients(metadata: Metadata) -> np.ndarray | None:
    """Return the number of each image's patient: int, shape (images,); None if they are unknown."""
    if "patient" not in metadata["images"][0]:
        return None
    return np.array([image["patient"] for image in metadata["images"]])


def has_given_split(metadata: Metadata) -> bool:
    """Check whether the source gives a split."""
    return "split" in metadata["images"][0]


def given_test_images(metadata: Metadata) -> np.ndarray:
    """Return whether each image is of a given test set: bool, shape (images,)."""
    return np.array([image.get("split") == "test" for image in metadata["images"]])
