"""Class folders and files with odd names are ingested, split and drawn."""

import json

import numpy as np

from brainmri.evaluation.figures.confusion import draw_confusion_matrix
from tests.support.images import encode_noise, write_raw_files

ODD_NAMES = [
    "with space.png",
    'comma,quote".png',
    "dollar$x$.png",
    "tab\tnewline\n.png",
    "ünï.png",
]
CLASSES = ["$a$ b", "ünï,c"]


def test_odd_names_are_kept_and_printed_in_one_line(fresh):
    files = {}
    for label, folder in enumerate(CLASSES):
        for index, name in enumerate(ODD_NAMES):
            path = f"{folder}/nested/{name}" if index % 2 else f"{folder}/{name}"
            files[path] = encode_noise(10 * label + index)
        files[f"{folder}/broken\n.png"] = b""
        files[f"{folder}/Thumbs.db"] = b"x"
    write_raw_files(fresh, files)
    fresh.edit(data__source="data/raw", split__folds=2)
    output = fresh.run("python", "-m", "stages", "ingest")
    reported = [line for line in output.stdout.splitlines() if line.startswith("skipped: ")]
    assert len(reported) == 2
    assert r"broken\n.png': empty file" in output
    metadata = json.loads(fresh.read("data/rad/metadata.json"))
    assert metadata["classes"] == CLASSES
    assert len(metadata["images"]) == 10
    assert "groups of near duplicates" in fresh.run("python", "-m", "stages", "split")
    png = draw_confusion_matrix(np.eye(2, dtype=int), CLASSES)
    assert png.startswith(b"\x89PNG")
