"""Shows where in the test images the ensemble sees its reasons, and where the tumour is known, whether it looks at it.

    dvc repro explain

Reads   models/ensemble.keras, data/rad, data/split.json; params: phantom, ingest, explain
Writes  plots/explanations.png   images that were right, wrong and least certain, with heat maps
        models/explanations.npz  those maps: `heat` (float32, n×h×w, 0 to 1), `rows` of the RAD, `classes` asked about
        metrics/explain.json     for synthetic slices, whose tumours are known: how much of the heat lies in them
"""

import stages.shared.start_tensorflow  # noqa: F401, isort: skip

import hashlib
import io
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from stages.shared import pictures
from stages.shared.explanations import heat_maps
from stages.shared.files import write_bytes, write_json
from stages.shared.images import frame, head_box
from stages.shared.models import load_ensemble, members_of, predictor
from stages.shared.params import Params, load_params
from stages.shared.phantoms import KINDS, draw_numbered, to_png
from stages.shared.rad import RadReader, read_metadata, read_split
from stages.shared.results import EXPLAINED, Explained
from stages.shared.running import run_stage


def main() -> None:
    params = load_params()
    metadata = read_metadata()
    rows = np.array(read_split(len(metadata["images"]))["test"])
    model, about = load_ensemble("models/ensemble.keras")
    members = members_of(model, about)
    with RadReader() as rad:
        images, labels = rad.images(rows), rad.labels[rows]

    probabilities = predictor(model)(images)["probabilities"]
    shown = choose(labels, probabilities, params.explain.images)
    predicted = probabilities.argmax(axis=1)
    heat = heat_maps(members, about["weights"], images[shown], predicted[shown])
    write_arrays("models/explanations.npz", heat=heat, rows=rows[shown], classes=predicted[shown])
    captions = [
        f"{metadata['classes'][labels[i]]}, told {metadata['classes'][predicted[i]]} with {probabilities[i].max():.2f}"
        for i in shown
    ]
    wrong = [predicted[i] != labels[i] for i in shown]
    write_bytes("plots/explanations.png", pictures.explanations(images[shown, ..., 0], heat, captions, wrong))

    known = {place: mask for place, row in enumerate(rows) if (mask := tumour(metadata["images"][row], params)) is not None}
    summary: Explained = {"images_drawn": len(shown)}
    if known:
        places, masks = list(known), np.stack(list(known.values()))
        heat = heat_maps(members, about["weights"], images[places], labels[places])
        hottest = heat.reshape(len(heat), -1).argmax(axis=1)
        inside = (heat * masks).sum(axis=(1, 2)) / np.maximum(heat.sum(axis=(1, 2)), 1e-9)
        summary["in_tumours"] = told = {
            "images": len(known),
            "hottest_point": float(np.mean(masks.reshape(len(masks), -1)[np.arange(len(masks)), hottest])),
            "heat": float(np.mean(inside)),
            "random_map": float(np.mean(masks)),
        }
        print(
            f"hottest point in the tumour: {told['hottest_point']:.0%} of {told['images']} positives, heat in it"
            f" {told['heat']:.0%}; of a random map {told['random_map']:.0%}"
        )
    write_json(EXPLAINED, summary)


def choose(labels: np.ndarray, probabilities: np.ndarray, images: int) -> list[int]:
    """Images to show: the surest right ones of each class in turn, the surest wrong ones, and the least certain of the others.

    A third each; where fewer are wrong, there are more of the least certain.
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    right = probabilities.argmax(axis=1)[order] == labels[order]
    rank = np.array([np.sum(labels[order][right][:place] == label) for place, label in enumerate(labels[order][right])])
    third = -(-images // 3)
    surest = order[right][np.argsort(rank, kind="stable")][:third].tolist() + order[~right][:third].tolist()
    others = [place for place in order[::-1].tolist() if place not in surest]
    return (surest + others)[:images]


def tumour(image: dict, params: Params) -> np.ndarray | None:
    """Where the tumour of a synthetic slice is in the RAD: bool, shape (size, size); None for any other image."""
    kind, _, number = PurePosixPath(image["path"]).stem.rpartition("-")
    if kind not in KINDS or kind == "no" or not number.isdecimal():
        return None
    drawn = draw_numbered(kind, int(number), params.phantom.seed)
    png = to_png(drawn.image)
    if hashlib.sha256(png).hexdigest() != image["sha256"]:
        return None
    grey, mask = Image.fromarray(drawn.image), Image.fromarray(drawn.tumour.astype(np.uint8) * 255)
    return frame(mask, head_box(grey) if params.ingest.crop else None, params.ingest.image_size) > 127


def write_arrays(path: str, **arrays: np.ndarray) -> None:
    """Write arrays into a compressed file that `numpy.load` reads without pickle; equal arrays give equal bytes."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_bytes(path, content.getvalue())


if __name__ == "__main__":
    run_stage(main)
