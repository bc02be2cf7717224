"""Rules for the layout of a source: its top-level folders must be its classes.

Class folders may be below the parts of a split (`Training`, `Testing`), below a folder of their
own, or there twice; each of these is refused, with a command that fixes it. Folders in a class,
such as patients, may have any name, but for the names of other classes.
"""

import mimetypes
import re
from collections import Counter, defaultdict
from typing import NoReturn

from brainmri.common.errors import UserError
from brainmri.images.folder_tree import FolderTree
from brainmri.images.folder_words import (
    MAX_CLASSES,
    MAY_BE_A_CLASS,
    are_numbered,
    are_within_classes,
    class_within,
    is_augmented,
    is_class,
    is_copies,
    is_masks,
    is_within_class,
    key_of,
    name_of,
    split_part,
    words_of,
)
from brainmri.images.suggestions import suggest_source, suggest_sources, suggest_split

MAX_NAMES = 6  # in a message
MASK = "(?:mask|seg|segmentation|gt|label)s?"
MASK_OF = [  # names without their endings; the group is that of the image
    re.compile(rf"(.+)[ _.-]{MASK}(?:[ _.-]*\(?\d+\)?)?"),
    re.compile(rf"{MASK}[ _.-]+(.+)"),
]
PATIENTS = (
    "; if the outer ones are patients, keep them apart by a table with a column patient instead"
    " (data.labels)"
)


def check_layout(tree: FolderTree) -> str | None:
    """Refuse a source whose top-level folders are not its classes.

    Where all top-level folders hold folders of the same names, either may be the classes; see
    `folder_words.are_within_classes`.

    Returns
    -------
    str or None
        A line to print: how subfolders that several classes hold were understood.

    Raises
    ------
    UserError
        Naming the folders, and what to do.
    """
    top = skip_single_folders(tree, "")
    if len(tree.folders[top]) < 2:
        return None
    _refuse_masks(tree, top)
    _refuse_split(tree, top)
    _refuse_parts_of_classes(tree, top)
    note = _explain_splits_within(tree, top)
    _refuse_repeated_classes(tree, top)
    _refuse_collections(tree, top)
    note = note or _explain_shared_subfolders(tree, top) or _explain_sites(tree, top)
    if top:
        only = name_of(tree.folders[""][0])
        raise UserError(
            f"{tree.parameter}: {str(tree.source)!r} has 1 class folder, {only!r}; expected two or"
            f" more; if the classes are {join_names(tree.folders[top])} in {_quote(tree, top)},"
            f" run `{suggest_source(tree, top)}`"
        )
    return note


def skip_single_folders(tree: FolderTree, path: str) -> str:
    """Return the first folder, this one or below it, with images, or with not exactly one folder.

    Files in the source itself do not count as images.
    """
    while len(tree.folders[path]) == 1 and (not path or not has_images(tree, path)):
        path = tree.folders[path][0]
    return path


def has_images(tree: FolderTree, path: str) -> bool:
    """Check whether files of a folder may be images by their names, unlike tables and `README`."""
    names = [name_of(file) for file in tree.files[path]]
    names = [name for name in names if not re.fullmatch("[A-Z]+", name)]
    types = [mimetypes.guess_type(name, strict=False)[0] or "image" for name in names]
    return any(mime_type.startswith("image") for mime_type in types)


def join_names(paths: list[str]) -> str:
    """Join the names of folders for a message, no more than the first few."""
    names = [repr(name_of(path)) for path in paths]
    if len(names) > MAX_NAMES:
        return ", ".join([*names[:MAX_NAMES], "…"])
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def find_masks(tree: FolderTree) -> set[str]:
    """Find the files in class folders that are masks by their names.

    They are in a folder that is named so, or beside the image that they are of: `7_mask.png`,
    `7_mask_1.png`, `mask_7.png`.
    """
    masks: set[str] = set()
    for folder, files in tree.files.items():
        stems = {path: name_of(path).rpartition(".")[0].casefold() for path in files}
        if any(map(is_masks, folder.split("/")[1:])):
            masks.update(files)
        elif folder:
            images = {*stems.values()}
            masks.update(path for path, stem in stems.items() if _is_mask(stem, images))
    return masks


def _is_mask(stem: str, images: set[str]) -> bool:
    """Check whether the name of a file, without its ending, is that of a mask of an image."""
    matches = [pattern.fullmatch(stem) for pattern in MASK_OF]
    return any(match and match[1] in images for match in matches)


def _refuse_masks(tree: FolderTree, top: str) -> None:
    """Refuse folders that would be classes, but are named as masks or annotations."""
    if masks := [path for path in tree.folders[top] if is_masks(path)]:
        raise UserError(
            f"{tree.parameter}: {_quote(tree, top)} holds {join_names(masks)}, named as masks or"
            " annotations; expected one folder for each class: move what is none elsewhere, or give"
            " a table of labels (data.labels)"
        )


def _refuse_split(tree: FolderTree, top: str) -> None:
    """Refuse folders that are named as parts of a split."""
    classes = tree.folders[top]
    parts = [path for path in classes if split_part(path)]
    if len(parts) < 2 and all(key_of(path) in MAY_BE_A_CLASS for path in parts):
        return
    named = f"{tree.parameter}: {_quote(tree, top)} holds {join_names(parts)}, named as "
    inner = _find_class_folders(tree, parts)
    for folder in inner.values():
        _refuse_masks(tree, folder)
    if inner:
        others = [path for path in classes if path not in parts]
        raise UserError(
            f"{named}parts of a split, with the class folders in them;"
            f" {suggest_split(tree, inner, others)}"
        )
    if len(parts) == len(classes):
        raise UserError(
            f"{named}parts of a split, and no class folders; expected one folder for each class"
        )
    others = join_names([path for path in classes if path not in parts])
    raise UserError(
        f"{named}a part of a split, beside {others};"
        " move it elsewhere, or rename it if it is a class"
    )


def _find_class_folders(tree: FolderTree, parts: list[str]) -> dict[str, str]:
    """Find the folder of class folders in each part of a split that has some.

    A single folder is one if it is named as a class of another part.
    """
    inner = {path: skip_single_folders(tree, path) for path in parts}
    inner = {path: folder for path, folder in inner.items() if len(tree.folders[folder]) > 1}
    classes = {key_of(path) for folder in inner.values() for path in tree.folders[folder]}
    for part in parts:
        folder = part
        while part not in inner and len(tree.folders[folder]) == 1:
            [single] = tree.folders[folder]
            if key_of(single) in classes:
                inner[part] = folder
            folder = single
    return inner


def _refuse_parts_of_classes(tree: FolderTree, top: str) -> None:
    """Refuse folders that are parts or copies of one class by their names: `no_train`, `no_test`.

    Names that only are spelled differently get a warning later.
    """
    paths_of: dict[str, list[str]] = defaultdict(list)
    for path in tree.folders[top]:
        paths_of[class_within(path)].append(path)
    parts = []
    for paths in paths_of.values():
        if len({"".join(words_of(name_of(path))) for path in paths}) > 1:
            parts += paths
    if parts:
        raise UserError(
            f"{tree.parameter}: {_quote(tree, top)} holds {join_names(sorted(parts))}, named as"
            " parts or copies of the same classes; expected one folder for each class: join their"
            " parts (a table with a column split keeps these apart: data.labels), and move copies"
            " and masks elsewhere"
        )


def _explain_splits_within(tree: FolderTree, top: str) -> str | None:
    """Say that parts of a split in all classes are joined; refuse folders that are no classes."""
    classes = tree.folders[top]
    parts = {}
    for path in classes:
        folders = tree.folders[skip_single_folders(tree, path)]
        parts[path] = [folder for folder in folders if split_part(folder)]
    divided = [path for path in classes if len(set(map(split_part, parts[path]))) > 1]
    collections = [
        path for path in divided if any(len(tree.folders[part]) > 1 for part in parts[path])
    ]
    if collections:
        first = min(collections, key=is_augmented)
        inner = _find_class_folders(tree, parts[first])
        raise UserError(
            f"{tree.parameter}: {_quote(tree, first)} holds {join_names(parts[first])}, parts of a"
            f" split with the class folders in them; {suggest_split(tree, inner, [])}"
        )
    if not divided:
        return None
    names = join_names(parts[divided[0]])
    if len(divided) < len(classes):
        raise UserError(
            f"{tree.parameter}: {_quote(tree, divided[0])} holds {names}, named as parts of a"
            " split, but other class folders hold none; move it elsewhere, or rename these"
        )
    return (
        f"warning: each class has folders named as parts of a split, {names}; this split is not"
        " used, all images are taken; to use it, give a table with a column split (data.labels)"
    )


def _refuse_repeated_classes(tree: FolderTree, top: str) -> None:
    """Refuse a folder in a class that is named as another class."""
    classes = tree.folders[top]
    keys = {key_of(path) for path in classes}
    for path in sorted(tree.folders):
        owner = next((name for name in classes if path.startswith(f"{name}/")), None)
        if owner is None or key_of(path) not in keys - {key_of(owner)}:
            continue
        if key_of(path).isdecimal() and key_of(owner).isdecimal():  # patient 2 of class 1
            continue
        parent = path.rpartition("/")[0]
        siblings = {key_of(sibling) for sibling in tree.folders[parent]}
        if keys - {key_of(owner)} <= siblings:
            advice = f"run `{suggest_source(tree, parent)}`, or remove one of the two"
            if is_copies(parent.removeprefix(top)):
                advice = "move these, named as copies, elsewhere"
            raise UserError(
                f"{tree.parameter}: {_quote(tree, top)} holds the class folders"
                f" {join_names(tree.folders[parent])} twice, the second time in"
                f" {_quote(tree, parent)}; {advice}"
            )
        raise UserError(
            f"{tree.parameter}: {_quote(tree, path)} is in {_quote(tree, owner)},"
            " but named as another class; move or rename it"
        )


def _refuse_collections(tree: FolderTree, top: str) -> None:
    """Refuse folders of class folders, known by the names of the classes."""
    classes = tree.folders[top]
    inner = [skip_single_folders(tree, path) for path in classes]
    collections = [path for path in inner if sum(map(is_class, tree.folders[path])) > 1]
    if collections and not any(map(is_class, classes)):
        names = join_names(tree.folders[collections[0]])
        raise UserError(
            f"{tree.parameter}: {_quote(tree, top)}: {names} in {_quote(tree, collections[0])} are"
            f" named as classes, unlike {join_names(classes)}; {suggest_sources(tree, collections)}"
            f"{PATIENTS}"
        )


def _explain_shared_subfolders(tree: FolderTree, top: str) -> str | None:
    """Say how folders that several classes hold are understood; refuse them if that is unclear."""
    classes = tree.folders[top]
    inner = [skip_single_folders(tree, path) for path in classes]
    # A single folder with images, as of a patient of one class, is a subfolder like others
    inner = [
        path.rpartition("/")[0] if has_images(tree, path) and path not in classes else path
        for path in inner
    ]
    if not all(tree.folders[path] for path in inner):
        return None
    subfolders = [[path for path in tree.folders[folder] if not is_masks(path)] for folder in inner]
    shared = _find_shared(subfolders)
    if len(shared) < 2:
        return None
    keys_of_inner = [set(map(key_of, paths)) for paths in subfolders]
    is_grid = all(keys == keys_of_inner[0] for keys in keys_of_inner)
    if not are_within_classes([*map(key_of, shared)], [*map(key_of, classes)], is_grid):
        _refuse_shared_subfolders(tree, top, inner, shared)
    return _note_on_subfolders(classes, shared)


def _explain_sites(tree: FolderTree, top: str) -> str | None:
    """Say that folders that only some classes hold are parts of these; refuse those of sites.

    Sites may lack classes: `siteA/AD`, `siteB/CN`, `siteC/AD`. The inner folders may be the classes
    if one of them is named so, or if the names of the outer ones differ in a number or a letter at
    the end alone; but not if an outer one holds images too, or no folder, or if the inner ones have
    digits or are more than classes probably are.
    """
    classes = tree.folders[top]
    if any(map(is_class, classes)):
        return None
    outer = _skip_common_folders(tree, classes)
    subfolders = [
        [path for path in tree.folders[folder] if not is_within_class(path)] for folder in outer
    ]
    keys = {key_of(path) for paths in subfolders for path in paths}
    shared = _find_shared(subfolders)
    if len(keys) < 2 or not shared:
        return None
    are_parts = (
        len(keys) > MAX_CLASSES
        or any(re.search(r"\d", key) for key in keys)
        or any(has_images(tree, path) or not tree.folders[path] for path in outer)
    )
    if not are_parts and (are_numbered(classes) or any(map(is_class, shared))):
        _refuse_shared_subfolders(tree, top, outer, shared)
    return _note_on_subfolders(classes, shared)


def _find_shared(subfolders: list[list[str]]) -> list[str]:
    """Find the names that several folders have among their subfolders; return the first of each."""
    first_of: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for paths in subfolders:
        for path in paths:
            first_of.setdefault(key_of(path), path)
        counts.update(set(map(key_of, paths)))
    return [first_of[key] for key in sorted(counts) if counts[key] > 1]


def _skip_common_folders(tree: FolderTree, paths: list[str]) -> list[str]:
    """Descend from folders as long as each holds a single folder, of the same name in all."""
    while not any(len(tree.folders[path]) != 1 or has_images(tree, path) for path in paths):
        inner = [tree.folders[path][0] for path in paths]
        if len(set(map(key_of, inner))) > 1:
            break
        paths = inner
    return paths


def _refuse_shared_subfolders(
    tree: FolderTree, top: str, inner: list[str], shared: list[str]
) -> NoReturn:
    """Refuse folders that several others hold, where either may be the classes."""
    classes = tree.folders[top]
    several = "several of " if len(classes) > 2 else ""
    same = "the same name" if len(shared) == 1 else "the same names"
    raise UserError(
        f"{tree.parameter}: {_quote(tree, top)}: {several}{join_names(classes)} hold folders of"
        f" {same}, {join_names(shared)}, so that either may be the classes; for the inner ones,"
        f" {suggest_sources(tree, inner)}{PATIENTS}; for the outer ones, give the inner ones"
        " names that differ"
    )


def _note_on_subfolders(classes: list[str], shared: list[str]) -> str:
    return (
        f"the classes are {join_names(classes)}; folders in several of them, {join_names(shared)},"
        " are taken as parts of each"
    )


def _quote(tree: FolderTree, path: str) -> str:
    return repr(str(tree.source / path))
