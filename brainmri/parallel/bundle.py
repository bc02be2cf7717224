"""What a worker on another machine needs to train members: files, by their content."""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from brainmri.common.errors import UserError
from brainmri.common.files import ZIP_EPOCH
from brainmri.common.params import Params
from brainmri.common.paths import METADATA, PARAMS, SAMPLES, SPLIT, STORE, STORE_INDEX

PACKAGE = Path("brainmri")
PACK_BYTES = 32 * 2**20  # of files that are sent together


class Bundle(NamedTuple):
    """Files of a run, by their content.

    Attributes
    ----------
    code : bytes
        A zip archive of the package.
    files : dict of str to str
        SHA-256 of each file, by its path, relative to the project's root.
    samples : dict of str to bytes
        Each member's bootstrap sample, by its name.
    """

    code: bytes
    files: dict[str, str]
    samples: dict[str, bytes]


def make_bundle(params: Params, names: Sequence[str]) -> Bundle:
    """Collect what the training of these members reads.

    Raises
    ------
    UserError
        If a file of pretrained weights is outside of the project, where workers would not look
        for it.
    """
    weights = sorted({Path(params.ensemble[name].weights_file) for name in names})
    for path in weights:
        if path.is_absolute() or ".." in path.parts:
            raise UserError(
                f"network.weights: '{path}' is outside of the project, whose files are all that"
                " workers get; expected a file inside, such as data/weights/NAME.h5"
            )
    shards = sorted((STORE / "shards").glob("*.h5"))
    paths = [PARAMS, SPLIT, STORE_INDEX, METADATA, *weights, *shards]
    for folder in sorted({Path(params.ensemble[name].features) for name in names}):
        paths += sorted(path for path in [folder, *folder.glob("*")] if path.is_file())
    files = {str(path): _hash(path.read_bytes()) for path in paths}
    samples = {name: (SAMPLES / f"{name}.json").read_bytes() for name in names}
    return Bundle(_zip_code(), files, samples)


def packs(files: dict[str, str], hashes: set[str]) -> Iterator[dict[str, bytes]]:
    """Read the files of these hashes, and yield them by hash, some `PACK_BYTES` at a time."""
    pack, size = {}, 0
    path_of = {digest: path for path, digest in files.items() if digest in hashes}
    for digest, path in path_of.items():
        content = Path(path).read_bytes()
        if _hash(content) != digest:
            raise UserError(f"{path!r} changed while fan-out ran; run `dvc repro` again")
        pack[digest], size = content, size + len(content)
        if size > PACK_BYTES:
            yield pack
            pack, size = {}, 0
    if pack:
        yield pack


def _zip_code() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(PACKAGE.rglob("*.py")):
            archive.writestr(zipfile.ZipInfo(str(path), ZIP_EPOCH), path.read_bytes())
    return content.getvalue()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
