"""The page of an audit: one file that needs no network and no other file."""

from dataclasses import dataclass
from pathlib import Path

from brainmri.audit.collection import Collection
from brainmri.audit.counts import (
    count_images,
    count_modes,
    count_sizes,
    guessable_fractions,
    slices_per_patient,
)
from brainmri.audit.findings import Findings, Item
from brainmri.audit.thumbnails import thumbnail_urls
from brainmri.common.paths import AUDIT_TABLES
from brainmri.report.rendering import environment_of

TEMPLATES = Path(__file__).parent / "templates"
MAX_IMAGES = 60  # of a list
MAX_OF_GROUP = 6
MAX_REJECTED = 200
SERIOUS = (  # lists that must be empty for results to be believed
    "across_classes",
    "across_split",
    "patients_across_split",
    "against",
)


@dataclass(frozen=True)
class Tile:
    """An image as the page shows it."""

    url: str
    path: str
    class_name: str
    split: str | None
    patient: int | None
    note: str


@dataclass(frozen=True)
class TileGroup:
    """Images that the page shows in one frame; `hidden` more are in the CSV file."""

    caption: str
    tiles: list[Tile]
    hidden: int


@dataclass(frozen=True)
class Section:
    """A list as the page shows it.

    Attributes
    ----------
    name, title, text, is_grouped : see `Findings`
    images, group_count : int
        On the list.
    by_class : dict of str to int
        Images, by class.
    groups : list of TileGroup
    hidden : int
        Groups, or images where they are not grouped, that are in the CSV file alone.
    is_serious : bool
    """

    name: str
    title: str
    text: str
    is_grouped: bool
    images: int
    group_count: int
    by_class: dict[str, int]
    groups: list[TileGroup]
    hidden: int
    is_serious: bool


def render_page(
    sources: dict[str, str],
    collection: Collection,
    other: Collection | None,
    lists: list[Findings],
    no_votes: str | None,
    with_thumbnails: bool = True,
) -> bytes:
    """Render the page as HTML, encoded as UTF-8.

    Parameters
    ----------
    sources : dict of str to str
        Paths that were audited, as the user named them, by what they are.
    collection : Collection
    other : Collection or None
        The one with which it is compared.
    lists : list of Findings
    no_votes : str or None
        Why there is no list of images that look mislabeled.
    with_thumbnails : bool
        Whether the page shows the images.
    """
    shown = _shown_files(collection, other, lists)
    urls = thumbnail_urls(shown) if with_thumbnails else dict.fromkeys(shown, "")
    sections = [_section(findings, collection, other, urls) for findings in lists]
    by_mode, by_chance = guessable_fractions(collection)
    text = (
        environment_of(TEMPLATES)
        .get_template("audit.html.j2")
        .render(
            sources=sources,
            collection=collection,
            sections=sections,
            images=count_images(collection),
            sizes=count_sizes(collection),
            modes=count_modes(collection),
            by_mode=by_mode,
            by_chance=by_chance,
            slices=slices_per_patient(collection),
            rejected=collection.rejected[:MAX_REJECTED],
            hidden_rejected=max(0, len(collection.rejected) - MAX_REJECTED),
            no_votes=no_votes,
            tables=AUDIT_TABLES.name,
        )
    )
    return text.encode("utf-8", "backslashreplace")


def visible_groups(findings: Findings) -> list[list[Item]]:
    """Return the images of each group that fit on the page."""
    groups, room = [], MAX_IMAGES
    for group in findings.groups:
        items = group.items[:MAX_OF_GROUP]
        if len(items) > room:
            break
        groups.append(items)
        room -= len(items)
    return groups


def _shown_files(
    collection: Collection, other: Collection | None, lists: list[Findings]
) -> dict[Path, bool]:
    """Return the files of which the page has thumbnails, and whether each is colored."""
    files = {}
    for findings in lists:
        for item in (item for items in visible_groups(findings) for item in items):
            owner = other if item.is_other else collection
            files[owner.files[item.row].file] = owner.measurements[item.row].is_colored
    return files


def _section(
    findings: Findings, collection: Collection, other: Collection | None, urls: dict[Path, str]
) -> Section:
    visible = visible_groups(findings)
    groups = [
        TileGroup(
            group.caption,
            [_tile(item, other if item.is_other else collection, urls) for item in items],
            len(group.items) - len(items),
        )
        for group, items in zip(findings.groups, visible, strict=False)
    ]
    return Section(
        findings.name,
        findings.title,
        findings.text,
        findings.is_grouped,
        len(findings.rows),
        len(findings.groups),
        collection.count_classes(findings.rows),
        groups,
        len(findings.groups) - len(visible),
        findings.name in SERIOUS,
    )


def _tile(item: Item, owner: Collection, urls: dict[Path, str]) -> Tile:
    file = owner.files[item.row]
    patient = None if owner.patients is None else owner.patients[item.row]
    return Tile(urls[file.file], file.path, file.class_name, file.split, patient, item.note)
