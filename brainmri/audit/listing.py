"""List the images of an audited collection, also where they are laid out as a split.

`ingest` refuses parts of a split in one folder, with a line that says what to type. An audit comes
before that decision, so it reads them as the split that they are.
"""

from pathlib import Path

from pydantic import ValidationError

from brainmri.common.errors import UserError
from brainmri.common.file_names import to_nfc
from brainmri.common.params import Data
from brainmri.images.folder_tree import FolderTree, walk_source
from brainmri.images.folder_words import split_part
from brainmri.images.layout import skip_single_folders
from brainmri.images.sources import Source, SourceFile, add_part, list_images
from brainmri.images.suggestions import suggest_source

VALIDATION = "validation"


def choose_data(configured: Data, folder: str | None, **options: str | None) -> Data:
    """Choose what to audit: the pipeline's source, or a folder, with options over it.

    Parameters
    ----------
    configured : Data
        Of params.yaml.
    folder : str or None
        None for the pipeline's source.
    **options : str or None
        `labels`, `test` and `patient`; None where not given.

    Raises
    ------
    UserError
        If an option is invalid, or does not fit the others.
    """
    values = configured.model_dump()
    if folder is not None:
        values = {**dict.fromkeys(values), "source": folder}
    values |= {name: value for name, value in options.items() if value is not None}
    try:
        return Data(**values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = f"{problem['loc'][0]}: " if problem["loc"] else ""
        raise UserError(name + problem["msg"].removeprefix("Value error, ")) from None


def resolve_layout(data: Data) -> tuple[Data, str | None]:
    """Look below the source for its class folders, or for the parts of a split.

    Returns
    -------
    data : Data
        With the folder of the training images as its source, and that of the test images.
    validation : str or None
        Folder of the validation images, if there are test images besides.
    """
    if data.labels or data.test or not Path(data.source).is_dir():
        return data, None
    tree, _ = walk_source(Path(data.source))
    top = skip_single_folders(tree, "")
    parts = _split_folders(tree, top)
    if "training" in parts and len(parts) > 1:
        training = parts.pop("training")
        test = parts.pop("test", None) or parts.pop(VALIDATION)
        validation = parts.get(VALIDATION)
        return data.model_copy(update={"source": training, "test": test}), validation
    if len(tree.folders[top]) > 1:
        if top:
            print(f"the class folders are in {f'{data.source}/{top}'!r}; to train on them, run")
            print(f"`{suggest_source(tree, top)}`")
        return data.model_copy(update={"source": str(Path(data.source) / top)}), None
    return data, None


def list_collection(data: Data, validation: str | None = None) -> Source:
    """List the images of a source, and those of a folder of validation images.

    Raises
    ------
    UserError
        See `list_images`.
    """
    source = list_images(data)
    if validation is None:
        return source
    part = list_images(data.model_copy(update={"source": validation, "test": None}))
    return add_part(source, part, Path(validation), VALIDATION)


def list_folder(folder: str) -> list[SourceFile]:
    """List all files of a folder, whatever its layout, as images without a class.

    Their paths begin with the folder, unlike those of a source.

    Raises
    ------
    UserError
        If it is no folder, or can't be listed.
    """
    source = Path(folder)
    if not folder or not source.is_dir():
        raise UserError(f"--against: {folder!r} is not a folder; expected a folder of images")
    tree, _ = walk_source(source, "--against")
    paths = sorted(path for files in tree.files.values() for path in files)
    return [SourceFile(to_nfc(f"{source}/{path}"), source, path, "") for path in paths]


def _split_folders(tree: FolderTree, top: str) -> dict[str, str]:
    """Return the folder of class folders of each part of a split, by part; empty if it is none."""
    paths = tree.folders[top]
    parts = {split_part(path): skip_single_folders(tree, path) for path in paths}
    is_split = len(parts) == len(paths) and {*parts} <= {"training", "test", VALIDATION}
    if not is_split or any(len(tree.folders[folder]) < 2 for folder in parts.values()):
        return {}
    return {part: f"{tree.source}/{folder}" for part, folder in parts.items()}
