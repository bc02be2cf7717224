"""A folder with made inputs of the stages after `ingest`, so that a stage runs in the test's own process within a second.

Classes and groups of near duplicates are of unequal sizes and interleaved, so that a row is never its own position, and a label
by position is a wrong one.
"""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from conftest import ROOT, assign

from stages.shared.params import Params, check, derive_ensemble
from stages.shared.rad import shard_name
from stages.shared.shards import pack, write_rad

SIDE = 16


@dataclass
class Workspace:
    """What was made.

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
        return list(csv.DictReader((self.folder / path).read_text().splitlines()))

    def set(self, **values) -> None:
        """Change keys of params.yaml; `a__b` stands for `a.b`."""
        assign(self.params, values)
        self.params["ensemble"] = derive_ensemble(check({**self.params, "ensemble": {}}, Params))
        self.write("params.yaml", yaml.safe_dump(self.params, sort_keys=False))

    def store(self) -> None:
        """Write the store of these images and labels."""
        write_store(self.folder, self.images, self.labels.tolist(), len(self.classes))

    def split(self, test: list[int], groups: list[int] | None = None) -> None:
        training = sorted({*range(len(self.labels))} - {*test})
        groups = self.groups.tolist() if groups is None else groups
        self.write("data/split.json", json.dumps({"test": test, "training": training, "groups": groups}))

    def predictions(self, name: str, part: str, rows: list[int], probabilities: np.ndarray) -> None:
        lines = [",".join(map(str, [row, *values])) for row, values in zip(rows, probabilities.tolist(), strict=True)]
        self.write(f"models/members/{name}/{part}.csv", "\n".join([",".join(["row", *self.classes]), *lines]) + "\n")


def write_store(folder: Path, images: np.ndarray, labels: list[int], classes: int) -> None:
    """Write data/rad of uint8 images, shape (n, side, side, 1), in a single shard."""
    content = pack(images, "none")
    name = shard_name(content)
    (folder / "shards").mkdir(exist_ok=True)
    (folder / f"shards/{name}.h5").write_bytes(content)
    write_rad(folder / "data/rad/image_data.h5", folder / "shards", [name], [len(labels)], labels, images.shape[1], classes)


def make(folder: Path, classes: int, members: int = 4) -> Workspace:
    """Make params.yaml, the store and its metadata."""
    rng = np.random.default_rng(classes)
    names = ["glioma", "none", "pituitary", *(f"rare-{number}" for number in range(9))][:classes]
    label_of_group = rng.permutation(np.repeat(np.arange(classes), np.resize([14, 22, 18], classes)))
    order = rng.permutation(np.repeat(np.arange(len(label_of_group)), rng.integers(1, 5, len(label_of_group))))
    labels = label_of_group[order]
    _, first, place = np.unique(order, return_index=True, return_inverse=True)
    groups = np.argsort(np.argsort(first))[place]
    images = np.clip(rng.normal(70 + 40 * labels[:, None, None, None], 30, (len(labels), SIDE, SIDE, 1)), 0, 255)
    workspace = Workspace(folder, names, labels, groups, images.astype(np.uint8))
    workspace.params = yaml.safe_load((ROOT / "params.yaml").read_text())
    workspace.set(seed=5, members=members, ingest__image_size=SIDE, evaluate__resamples=100)
    workspace.store()

    heads, wholes = rng.integers(0, 256, (2, len(labels), 32), np.uint8)
    for group in range(len(label_of_group)):  # a chain: 15 bits from one to the next, by one of the two hashes
        rows, near = np.flatnonzero(groups == group), (heads, wholes)[group % 2]
        near[rows] = near[rows[0]] ^ np.array([np.packbits(np.arange(256) < 15 * step) for step in range(len(rows))])
    entries = [
        {
            "path": f"{names[label]}/{row:03d}.png",
            "class": names[label],
            "sha256": f"{row:064x}",
            "perceptual_hash": heads[row].tobytes().hex(),
            "whole_hash": wholes[row].tobytes().hex(),
            "width": SIDE,
            "height": SIDE,
            "mode": "L",
            "levels": [0.0, 255.0],
        }
        for row, label in enumerate(labels)
    ]
    workspace.write("data/rad/metadata.json", json.dumps({"classes": names, "images": entries, "rejected": []}))
    return workspace
