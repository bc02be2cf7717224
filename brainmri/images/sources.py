"""List the images of a source, a folder of class folders.

Names are compared in composed Unicode (NFC): a class is named in that form, whatever its folder.
"""

from pathlib import Path

from brainmri.common.errors import UserError
from brainmri.common.file_names import to_nfc
from brainmri.images.folder_tree import walk_source
from brainmri.images.layout import check_layout


def list_images(source: Path) -> tuple[list[str], list[tuple[str, str]], list[dict]]:
    """List the classes and the files of a source; hidden and system files are skipped.

    Returns
    -------
    classes : list of str
        Names of the class folders in composed Unicode, sorted.
    files : list of (class, path)
        Paths below the source, sorted by class and by path in composed Unicode.
    rejected : list of dict
        `path` and `reason` of what is not read: files beside the class folders, and what
        `folder_tree.walk_source` rejects, so that the images are those that the source itself
        holds.

    Raises
    ------
    UserError
        If there are fewer than two class folders, a folder can't be listed, the class folders are
        elsewhere in the source, or a file is a link out of the source.
    """
    if not source.is_dir():
        raise UserError(
            f"data.source: {str(source)!r} is not a folder; expected a folder of class folders"
        )
    tree, rejected = walk_source(source)
    if note := check_layout(tree):
        print(note)
    classes = sorted({to_nfc(name) for name in tree.folders[""]})
    if len(classes) < 2:
        reasons = [f" ({file['path']!r}: {file['reason']})" for file in rejected]
        raise UserError(
            f"data.source: {str(source)!r} has {len(classes)} class folder(s);"
            f" expected two or more, one for each class{''.join(reasons[:1])}"
        )
    rejected += [{"path": path, "reason": "not in a class folder"} for path in tree.files[""]]
    paths = [path for folder in tree.files if folder for path in tree.files[folder]]
    files = [(to_nfc(path.partition("/")[0]), path) for path in paths]
    files.sort(key=lambda file: (file[0], to_nfc(file[1]), file[1]))
    return classes, files, sorted(rejected, key=lambda file: file["path"])
