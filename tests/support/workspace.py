"""A folder with what the stages before `train` write, so that a stage runs in the test's process.

Classes and groups of near duplicates are of unequal sizes and interleaved, so that a row never
equals its position, and a label by position is wrong.
"""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from brainmri.common.params import Params, derive_ensemble, validate
from brainmri.store import writer
from brainmri.store.format import shard_name
from tests.support.project import assign, scratch_params

SIDE = 16
NAMES = ["glioma", "none", "pituitary", *(f"rare-{number}" for number in range(9))]
GROUP_SIZES = [14, 22, 18]  # groups of a class, in turn
NO_AUGMENTATION = {
    "flip": False,
    "rotation": 0.0,
    "shift": 0.0,
    "zoom": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
    "erase": 0.0,
}


@dataclass
class Workspace:
    """The folder and what is in it.

    Attributes
    ----------
    labels, groups : ndarray of int, shape (n,)
        Groups are numbered in order of first appearance.
    images : ndarray of uint8, shape (n, 16, 16, 1)
        Brighter the higher the class.
    """

    folder: Path
    classes: list[str]
    labels: np.ndarray
    groups: np.ndarray
    images: np.ndarray
    params: dict = field(default_factory=dict)

    def write(self, path: str, content: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(content)

    def read(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())

    def table(self, path: str) -> list[dict[str, str]]:
        """Read the rows of a CSV file."""
        return list(csv.DictReader((self.folder / path).read_text().splitlines()))

    def set(self, **values) -> None:
        """Change keys of params.yaml; `a__b` stands for `a.b`."""
        assign(self.params, values)
        self.params["ensemble"] = derive_ensemble(validate({**self.params, "ensemble": {}}, Params))
        self.write("params.yaml", yaml.safe_dump(self.params, sort_keys=False))

    def store(self) -> None:
        """Write the store of these images and labels."""
        write_store(self.folder, self.images, self.labels.tolist(), len(self.classes))

    def split(self, test: list[int], groups: list[int] | None = None) -> None:
        """Write data/split.json with these test rows."""
        split = {
            "test": test,
            "training": sorted({*range(len(self.labels))} - {*test}),
            "excluded": [],
            "groups": self.groups.tolist() if groups is None else groups,
        }
        self.write("data/split.json", json.dumps(split))

    def predictions(self, name: str, part: str, rows: list[int], probabilities: np.ndarray) -> None:
        """Write the table of a member's predictions."""
        lines = [",".join(["row", *self.classes])]
        for row, values in zip(rows, probabilities.tolist(), strict=True):
            lines.append(",".join(map(str, [row, *values])))
        self.write(f"models/members/{name}/{part}.csv", "\n".join(lines) + "\n")


def write_store(folder: Path, images: np.ndarray, labels: list[int], classes: int) -> None:
    """Write data/rad of uint8 images, shape (n, side, side, 1), in a single shard."""
    content = writer.encode_shard(images, "none")
    name = shard_name(content)
    shards = folder / "shards"
    shards.mkdir(exist_ok=True)
    (shards / f"{name}.h5").write_bytes(content)
    index, side = folder / "data/rad/image_data.h5", images.shape[1]
    writer.write_store(index, shards, [name], [len(labels)], labels, side, classes)


def make(folder: Path, classes: int, members: int = 4) -> Workspace:
    """Make params.yaml, the store and its metadata."""
    rng = np.random.default_rng(classes)
    group_labels = np.repeat(np.arange(classes), np.resize(GROUP_SIZES, classes))
    label_of_group = rng.permutation(group_labels)
    copies = rng.integers(1, 5, len(label_of_group))
    order = rng.permutation(np.repeat(np.arange(len(label_of_group)), copies))
    labels = label_of_group[order]
    _, first, place = np.unique(order, return_index=True, return_inverse=True)
    groups = np.argsort(np.argsort(first))[place]
    levels = 70 + 40 * labels[:, None, None, None]
    images = np.clip(rng.normal(levels, 30, (len(labels), SIDE, SIDE, 1)), 0, 255)
    workspace = Workspace(folder, NAMES[:classes], labels, groups, images.astype(np.uint8))
    workspace.params = scratch_params()
    workspace.set(seed=5, members=members, ingest__image_size=SIDE, evaluate__resamples=100)
    workspace.set(evaluate__positive=NAMES[1] if classes == 2 else None)
    workspace.store()

    hashes = rng.integers(0, 256, (4, len(labels), 32), np.uint8)
    for group in range(len(label_of_group)):
        rows = np.flatnonzero(groups == group)
        chain_hashes(hashes[group % 2], rows)  # alternately of the head and of the whole image
    write_metadata(workspace, hashes)
    return workspace


def chain_hashes(hashes: np.ndarray, rows: np.ndarray) -> None:
    """Make the hashes of a group's rows a chain, in place: 15 bits from each to the next."""
    differences = [np.packbits(np.arange(256) < 15 * step) for step in range(len(rows))]
    hashes[rows] = hashes[rows[0]] ^ np.array(differences)


def write_metadata(workspace: Workspace, hashes: np.ndarray) -> None:
    """Write data/rad/metadata.json, with perceptual hashes of the images: uint8, 4×n×32."""
    names = workspace.classes
    entries = [
        {
            "path": f"{names[label]}/{row:03d}.png",
            "class": names[label],
            "sha256": f"{row:064x}",
            "perceptual_hashes": [digits.tobytes().hex() for digits in hashes[:, row]],
            "width": SIDE,
            "height": SIDE,
            "mode": "L",
            "levels": [0.0, 255.0],
        }
        for row, label in enumerate(workspace.labels)
    ]
    metadata = {"classes": names, "images": entries, "rejected": []}
    workspace.write("data/rad/metadata.json", json.dumps(metadata))
