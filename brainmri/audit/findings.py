"""The lists of an audit: each names images, in groups, and why they are on it."""

from dataclasses import dataclass, field

from brainmri.audit.overlaps import Pair


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


def single_findings(name: str, title: str, text: str, items: list[Item]) -> Findings:
    """Return a list of images that don't belong together."""
    groups = [Group([item]) for item in items]
    return Findings(name, title, text, groups, [item.row for item in items])


def grouped_findings(name: str, title: str, text: str, groups: list[Group]) -> Findings:
    """Return a list of groups of images, which count as groups, too."""
    rows = [item.row for group in groups for item in group.items]
    return Findings(name, title, text, groups, rows, is_grouped=True)


def pair_groups(pairs: list[Pair], is_other: bool = False) -> list[Group]:
    """Return a group for each pair; see `Item.is_other`."""
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
