"""The files of the split and of the members' samples: their types, and functions that read them."""

from collections.abc import Collection
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from brainmri.common.errors import UserError
from brainmri.common.files import read_json
from brainmri.common.paths import SAMPLES, SPLIT

Rows = list[Annotated[int, Field(ge=0)]]


class Split(TypedDict):
    """data/split.json.

    Attributes
    ----------
    test, training, excluded : list of int
        Rows of the store.
    groups : list of int
        By row, the group of images that are not independent: near duplicates, images of a patient.
    """

    test: Rows
    training: Rows
    excluded: Rows
    groups: Rows


class Sample(TypedDict):
    """data/bootstrap/MEMBER.json: rows of the store; an in-bag row may repeat."""

    in_bag: Annotated[Rows, Field(min_length=1)]
    out_of_bag: Annotated[Rows, Field(min_length=1)]


def read_split(images: int) -> Split:
    """Read data/split.json.

    Parameters
    ----------
    images : int
        Number of images in the store.

    Raises
    ------
    UserError
        If the file is missing, is damaged, or is not a split of so many images.
    """
    split = read_json(SPLIT, Split)
    rows = sorted(split["test"] + split["training"] + split["excluded"])
    if rows != list(range(images)) or len(split["groups"]) != images:
        raise UserError(
            f"{SPLIT} is not a split of the {images} images in the store; run"
            " `dvc repro --force split`"
        )
    return split


def read_sample(member: str, rows: Collection[int]) -> tuple[list[int], list[int]]:
    """Read a member's in-bag and out-of-bag rows.

    Parameters
    ----------
    member : str
        Its name.
    rows : collection of int
        The rows from which it may have been drawn.

    Raises
    ------
    UserError
        If the file is missing, is damaged, or was not drawn from these rows.
    """
    path = SAMPLES / f"{member}.json"
    sample = read_json(path, Sample)
    in_bag, out_of_bag = sample["in_bag"], sample["out_of_bag"]
    is_drawn_from_rows = {*in_bag, *out_of_bag} <= {*rows}
    if not is_drawn_from_rows or {*in_bag} & {*out_of_bag}:
        raise UserError(
            f"{path} was not drawn from these images; run `dvc repro --force bootstrap-sample`"
        )
    return in_bag, out_of_bag


def kind_of_groups(has_near_duplicates: bool, has_patients: bool) -> str:
    """Return what the images of a group have in common; "" if each image is a group."""
    kinds = {"near duplicates": has_near_duplicates, "patients": has_patients}
    return " and ".join(kind for kind, is_common in kinds.items() if is_common)
