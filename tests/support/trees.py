"""Folders of small files, as sources have them."""

from pathlib import Path

from brainmri.common.params import Data
from brainmri.images.sources import list_images
from tests.support.images import encode_noise

SYSTEM_FILES = [
    # macOS
    "__MACOSX/._a.png",
    ".DS_Store",
    "._a.png",
    "Icon\r",
    ".Spotlight-V100/a.png",
    ".Trashes/a.png",
    ".fseventsd/a.png",
    # Windows
    "Thumbs.db",
    "THUMBS.DB",
    "ehthumbs.db",
    "desktop.ini",
    "Desktop.ini",
    "$RECYCLE.BIN/a.png",
    "RECYCLER/a.png",
    "System Volume Information/a.png",
    "FOUND.000/a.png",
    # Linux and Android
    "lost+found/a.png",
    ".Trash-1000/files/a.png",
    ".directory",
    "LOST.DIR/a.png",
    # NAS devices
    "@eaDir/a.png/SYNOFILE_THUMB_M.jpg",
    "a.png@SynoEAStream",
    "#recycle/a.png",
    "#snapshot/a.png",
    "@Recycle/a.png",
    ".@__thumb/a.png",
    ".snapshot/a.png",
    "~snapshot/a.png",
    # Programs
    ".ipynb_checkpoints/a-checkpoint.png",
    ".dropbox",
    ".stversions/a.png",
    "Picasa.ini",
    ".picasa.ini",
]


def make_tree(folder: Path, *paths: str) -> Path:
    """Write a small image file at each path below a folder; return the folder."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(encode_noise(len(path)))
    return folder


def product(outer: str, inner: str) -> list[str]:
    """Return two paths for each outer folder and each folder in it, given as words."""
    return [
        f"{folder}/{subfolder}/{index}.png"
        for folder in outer.split()
        for subfolder in inner.split()
        for index in range(2)
    ]


def data_of(source: Path | str, **values: str) -> Data:
    """Return the parameters `data` of a source, with other values than null."""
    return Data(**{"labels": None, "patient": None, "test": None, "source": str(source), **values})


def list_folder(source: Path | str) -> tuple[list[str], list[tuple[str, str]], list[dict]]:
    """List a folder of class folders: classes, class and path of each image, rejected files."""
    classes, files, rejected = list_images(data_of(source))
    return classes, [(file.class_name, file.below) for file in files], rejected
