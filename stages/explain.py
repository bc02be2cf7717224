"""Shows where in the test images the ensemble sees evidence for a finding, and whether that is where a known tumor is.

    dvc repro explain

Reads   models/ensemble.keras, data/rad, data/split.json; params: phantom, ingest, explain
Writes  plots/explanations.png   images that were right, wrong and least certain, with heat maps
        models/explanations.npz  those maps: `heat` (float32, n×h×w, log-odds in nats per 1 % of the image's area), `rows` of
                                 the RAD, `classes` asked about; `scale`: the heat at the top of the color bar
        metrics/explain.json     for synthetic slices, whose tumors are known: how often these maps point at them
"""

import stages.shared.start_tensorflow  # noqa: F401, isort: skip

import hashlib
import io
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from stages.shared import pictures
from stages.shared.explanations import explained_classes, heat_maps
from stages.shared.files import write_bytes, write_json
from stages.shared.images import frame, head_box
from stages.shared.models import load_ensemble, members_of, predictor
from stages.shared.params import Params, load_params
from stages.shared.phantoms import KINDS, draw_numbered, to_png
from stages.shared.rad import RadReader, read_metadata, read_split
from stages.shared.results import EXPLAINED, Explained, PointingGame
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
    predicted, asked = probabilities.argmax(axis=1), explained_classes(probabilities)
    shown = choose(labels, probabilities, params.explain.images)
    masks = {place: mask for place, row in enumerate(rows) if (mask := tumour(metadata["images"][row], params)) is not None}
    mapped = sorted({*shown, *masks})
    maps = dict(zip(mapped, heat_maps(members, about["weights"], images[mapped], asked[mapped]), strict=True))

    heat, scale, classes = np.stack([maps[place] for place in shown]), about["heat_scale"], metadata["classes"]
    write_arrays("models/explanations.npz", heat=heat, scale=np.array(scale), rows=rows[shown], classes=asked[shown])
    names = pictures.short_names(classes)
    captions = [f"true {names[labels[i]]}, predicted {names[predicted[i]]} {probabilities[i].max():.2f}" for i in shown]
    wrong = [predicted[i] != labels[i] for i in shown]
    outlines = [masks.get(place) for place in shown]
    label = pictures.evidence_label(classes)
    drawn = pictures.explanations(images[shown, ..., 0], heat, scale, label, outlines, captions, wrong)
    write_bytes("plots/explanations.png", drawn)

    summary: Explained = {"images_drawn": len(shown)}
    if masks:
        summary["pointing_game"] = game = pointing_game(np.stack([maps[place] for place in masks]), np.stack([*masks.values()]))
        print(
            f"hottest point in the tumor: {game['accuracy']:.0%} of {game['images']} positives, heat in it"
            f" {game['energy']:.0%}; by chance {game['chance']:.0%}"
        )
    write_json(EXPLAINED, summary)


def pointing_game(heat: np.ndarray, masks: np.ndarray) -> PointingGame:
    """Measure how well heat maps point at regions that are known.

    Parameters
    ----------
    heat : ndarray of float, shape (n, height, width)
    masks : ndarray of bool, shape (n, height, width)

    References
    ----------
    J. Zhang et al., "Top-Down Neural Attention by Excitation Backprop", IJCV 2018 (accuracy); H. Wang et al., "Score-CAM",
    CVPR Workshops 2020 (energy).
    """
    hottest = heat.reshape(len(heat), -1).argmax(axis=1)
    hits = masks.reshape(len(masks), -1)[np.arange(len(masks)), hottest]
    hits &= heat.max(axis=(1, 2)) > 0
    energy = (heat * masks).sum(axis=(1, 2)) / np.maximum(heat.sum(axis=(1, 2)), 1e-9)
    return {
        "images": len(heat),
        "accuracy": float(np.mean(hits)),
        "energy": float(np.mean(energy)),
        "chance": float(np.mean(masks)),
    }


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
    """Where the tumor of a synthetic slice is in the RAD: bool, shape (size, size); None for any other image."""
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
