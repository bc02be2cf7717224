"""Commands that a message about the layout of a source suggests."""

import re
import shlex

from brainmri.common.file_names import to_nfc
from brainmri.images.folder_tree import FolderTree
from brainmri.images.folder_words import PARTS, is_augmented, name_of, split_part


def suggest_source(tree: FolderTree, path: str) -> str:
    """Return the command that runs the pipeline on a folder below the source."""
    return _run({tree.parameter: f"{tree.source}/{path}"})


def suggest_split(tree: FolderTree, folders: dict[str, str], others: list[str]) -> str:
    """Return what to type to train and test on the parts of a split, if the test images are of no
    other classes.

    Validation images join the training images, or are the test images where there are no others.
    Where no part is of training images, the other folders may be those, or the classes of those.

    Parameters
    ----------
    tree : FolderTree
    folders : dict of str to str
        Folder of class folders of each part, by the path of the part.
    others : list of str
        Folders beside the parts.
    """
    of_part = {
        part: [folder for path, folder in folders.items() if split_part(path) == part]
        for part in PARTS
    }
    training, test, validation = (of_part[part] for part in ("training", "test", "validation"))
    if not test:
        test, validation = validation, []
    if tree.parameter == "data.test":
        return suggest_sources(tree, list(folders.values()), test)
    classes = _classes(tree, test)
    training = training or [path for path in others if classes <= _classes(tree, [path])]
    if len(test) == len(training) == 1 and classes <= _classes(tree, training + validation):
        return _suggest_test(tree, training, validation, f"{tree.source}/{test[0]}")
    if len(test) == 1 and not training and classes <= {to_nfc(name_of(path)) for path in others}:
        target = f"{tree.source}-test"
        folder, target_folder = map(quote_for_shell, (f"{tree.source}/{test[0]}", target))
        command = _run({"data.source": str(tree.source), "data.test": target})
        return f"run `mv {folder} {target_folder} && {command}`"
    return suggest_sources(tree, list(folders.values()), training + validation)


def suggest_sources(tree: FolderTree, paths: list[str], preferred: list[str] | None = None) -> str:
    """Return what to type to use the largest of folders of class folders, or all of them.

    Augmented copies are excluded if there are other folders.

    Parameters
    ----------
    tree : FolderTree
    paths : list of str
    preferred : list of str, optional
        Those of which the largest is meant; default: all.
    """

    def count(path: str) -> int:
        return len(tree.files[path]) + sum(map(count, tree.folders[path]))

    originals = [path for path in paths if not is_augmented(path)] or paths
    excluding = "" if originals == paths else "; leave augmented copies out, since they would leak"
    target = f"{tree.source}-joined"
    use_all = f"use all after `{_join(tree, originals, target)}` with {tree.parameter}={target}"
    candidates = originals if preferred is None else preferred
    needed = 1 if tree.parameter == "data.test" else 2  # a test set may lack classes
    with_classes = [
        path for path in originals if path in candidates and len(tree.folders[path]) >= needed
    ]
    if not with_classes:
        return use_all + excluding
    largest = f"run `{suggest_source(tree, max(with_classes, key=count))}`"
    return (largest if len(originals) == 1 else f"{largest}, or {use_all}") + excluding


def quote_for_shell(text: str) -> str:
    """Quote a word for a shell; a word that can't be printed is quoted as Python does it."""
    return shlex.quote(text) if text.isprintable() else repr(text)


def _suggest_test(
    tree: FolderTree, training: list[str], validation: list[str], test_folder: str
) -> str:
    """Return what to type to train on folders of class folders and test on another."""
    if not validation:
        command = _run({"data.source": f"{tree.source}/{training[0]}", "data.test": test_folder})
        return f"run `{command}`"
    joined = f"{tree.source}-training"
    command = _run({"data.source": joined, "data.test": test_folder})
    return f"run `{_join(tree, training + validation, joined)} && {command}`"


def _classes(tree: FolderTree, paths: list[str]) -> set[str]:
    """Return the classes of folders of class folders."""
    return {to_nfc(name_of(folder)) for path in paths for folder in tree.folders[path]}


def _run(paths: dict[str, str]) -> str:
    """Return the command that runs the pipeline with these paths, by parameter."""
    settings = [quote_for_shell(f"{name}={_escape(path)}") for name, path in paths.items()]
    return "dvc exp run " + " ".join(f"-S {setting}" for setting in settings)


def _escape(path: str) -> str:
    """Return a path as Hydra reads it, which would parse some characters as syntax."""
    if re.fullmatch(r"[\w./@ -]+", path, re.ASCII):
        return path
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _join(tree: FolderTree, paths: list[str], target: str) -> str:
    """Return the command that copies the contents of folders into a new one."""
    quoted_target = quote_for_shell(target)
    contents = " ".join(quote_for_shell(f"{tree.source}/{path}/.") for path in paths)
    return f"mkdir {quoted_target} && cp -r --backup=numbered {contents} {quoted_target}"
