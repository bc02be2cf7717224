"""Class folders and files with odd names go through ingest, split and the pictures."""

import json

import numpy as np
from PIL import Image

from stages.report import in_one_line, listing, sentence
from stages.shared.pictures import confusion

ODD = [
    "with space.png",
    'comma,quote".png',
    "dollar$x$.png",
    "tab\tnewline\n.png",
    "ünï.png",
]


def test_odd_names_are_kept_and_told_in_one_line(fresh):
    for label, name in enumerate(("$a$ b", "ünï,c")):
        folder = fresh.path / "data/raw" / name
        (folder / "nested").mkdir(parents=True)
        for index, file in enumerate(ODD):
            noise = np.random.default_rng([index, label]).integers(0, 256, (40, 40), np.uint8)
            Image.fromarray(noise).save(folder / ("nested/" * (index % 2) + file), "PNG")
        (folder / "broken\n.png").write_bytes(b"")
        (folder / "Thumbs.db").write_bytes(b"x")
    fresh.edit(data__source="data/raw", split__folds=2)
    output = fresh.run("python", "-m", "stages.ingest")
    assert sum(line.startswith("left out: ") for line in output.stdout.splitlines()) == 2
    assert r"broken\n.png': empty file" in output
    metadata = json.loads(fresh.read("data/rad/metadata.json"))
    assert metadata["classes"] == ["$a$ b", "ünï,c"]
    assert len(metadata["images"]) == 10
    assert "groups of near duplicates" in fresh.run("python", "-m", "stages.split")
    assert confusion(np.eye(2, dtype=int), metadata["classes"]).startswith(b"\x89PNG")


def test_reports_list_the_first_of_many_classes_and_keep_tables_whole():
    assert listing(["no", "yes"]) == "no, yes"
    assert listing([f"c{number}" for number in range(100)]).endswith("c8, c9 and 90 more")
    assert in_one_line("a|b\nc") == "a\\|b?c"
    assert sentence("no ROC AUC; 'yes' has 1") == "No ROC AUC; 'yes' has 1."
