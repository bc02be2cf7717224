"""Write the HDF5 files of the store: equal images give equal bytes."""

import io
import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np

from brainmri.common.files import write_bytes
from brainmri.store.format import USER_BLOCK, with_checksum

GZIP_LEVEL = 4


def encode_shard(images: np.ndarray, compression: str) -> bytes:
    """Encode images as the content of a shard.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width, 1)
    compression : {"none", "gzip"}
        With gzip, each image is a chunk.

    Returns
    -------
    bytes
        An HDF5 file with a dataset `images`.
    """
    options = {}
    if compression == "gzip":
        options = {
            "chunks": (1, *images.shape[1:]),
            "compression": "gzip",
            "compression_opts": GZIP_LEVEL,
        }
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("images", data=images, **options)
    return content.getvalue()


def write_store(
    path: Path,
    source: Path,
    names: list[str],
    sizes: list[int],
    labels: list[int],
    size: int,
    classes: int,
) -> None:
    """Write the index file and the shards beside it; remove all other shards.

    At any moment the store on the disk is complete: the old one or the new one.

    Parameters
    ----------
    path : Path
        The index file.
    source : Path
        Folder that holds the shards. They are hard-linked, or copied where links are impossible.
    names : list of str
        Shards in the order of their rows; a name may occur more than once.
    sizes : list of int
        Number of images in each.
    labels : list of int
        Label of each image.
    size : int
        Height and width of the images, in pixels.
    classes : int
        Number of classes. Up to 256 give labels of type uint8, more give uint16.
    """
    folder = path.parent / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    current = {f"{name}.h5" for name in names}
    for name in current:
        _link_or_copy(source / name, folder / name)
    write_bytes(path, _encode_index(names, sizes, labels, size, classes))
    for file in folder.iterdir():
        if file.name not in current:
            file.unlink()


def _encode_index(
    names: list[str], sizes: list[int], labels: list[int], size: int, classes: int
) -> bytes:
    label_type = np.uint8 if classes <= 256 else np.uint16
    content = io.BytesIO()
    with h5py.File(content, "w", userblock_size=USER_BLOCK) as file:
        _create_virtual_images(file, names, sizes, (size, size, 1))
        file.create_dataset("labels", data=np.array(labels, label_type))
        file.create_dataset("shards", data=np.array(names, "S32"))
        file.create_dataset("shard_sizes", data=np.array(sizes, np.uint32))
    return with_checksum(content.getvalue())


def _create_virtual_images(
    file: h5py.File, names: list[str], sizes: list[int], shape: tuple[int, int, int]
) -> None:
    """Create the virtual dataset `images`; h5py's own way would write the time into the file."""
    space = h5py.h5s.create_simple((sum(sizes), *shape))
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)
    start = 0
    for name, rows in zip(names, sizes, strict=True):
        space.select_hyperslab((start, 0, 0, 0), (rows, *shape))
        shard_path = f"shards/{name}.h5".encode()
        shard_space = h5py.h5s.create_simple((rows, *shape))
        creation.set_virtual(space, shard_path, b"images", shard_space)
        start += rows
    space.select_all()
    h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8, space, creation)


def _link_or_copy(source: Path, target: Path) -> None:
    """Replace the target by the source in one step, unless it is the same file already."""
    if target.exists() and target.samefile(source):
        return
    temporary = Path(tempfile.mktemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
