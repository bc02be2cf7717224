"""Join members, voting weights, calibration and novelty in one model."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from brainmri.common.params import NEAR_DUPLICATE_BITS, Params
from brainmri.common.paths import ENSEMBLE, MEMBERS
from brainmri.evaluation.decisions import positive_of
from brainmri.evaluation.metrics import reported_classes
from brainmri.evaluation.results import (
    ExportMetrics,
    NoveltyWarnings,
    VotingWeights,
    read_ensemble_metrics,
)
from brainmri.evaluation.voting import ENSEMBLE as ENSEMBLE_VOTER
from brainmri.models.about import About, TrainingImages
from brainmri.models.ensemble import batch_predictor, build_ensemble_model
from brainmri.models.formats import concatenate, write_formats
from brainmri.models.heat_maps import heat_scale
from brainmri.models.novelty import fit_novelty, novelty_model, thumbnailer
from brainmri.networks.saving import load_model, save_model
from brainmri.sampling.files import Split
from brainmri.store.metadata import Image, Metadata
from brainmri.store.reader import RadReader

BATCH_SIZE = 64
PREPROCESSING = (
    "Upright, transparent parts on black, gray by ITU-R 601-2. Levels of 8 bits or fewer are kept."
    " Of more bits, the window from the 0.1 percentile in the head's box to the 99.9 percentile of"
    " what stands out from the background there becomes 0 to 255. Cropped to the head if `crop`;"
    " scaled with its aspect ratio kept (bicubic) and padded with black to `size`×`size`; uint8,"
    " shape (n, size, size, 1)."
)
DISCLAIMER = (
    "Not for clinical use: it was not tested for any, and has seen nothing but its training images."
)


def export_ensemble(
    params: Params, metadata: Metadata, split: Split, vote: VotingWeights
) -> ExportMetrics:
    """Write the ensemble as a Keras model and in `export.formats`; return what is measured of it
    on the test images.
    """
    weights = {name: member["weight"] for name, member in vote["members"].items()}
    calibration = vote["calibrations"][ENSEMBLE_VOTER]
    members = {name: load_model(MEMBERS / name / "model.keras") for name in weights}
    frozen = {
        name: Path(member.features).name
        for name, member in params.ensemble.items()
        if member.network.is_frozen
    }
    explained = reported_classes(len(metadata["classes"]), positive_of(vote["decision"]))
    with RadReader() as rad:
        novelty = _fit_novelty(rad, split, params.export.false_alarms)
        model = build_ensemble_model(
            members,
            weights,
            **calibration,
            novelty=novelty,
            frozen=frozen,
            views=params.train.views,
        )
        predict = batch_predictor(model)
        with_finding = [row for row in split["training"] if rad.labels[row] in explained]
        scale = heat_scale(members, weights, rad, with_finding)
        outputs = concatenate([predict(images) for images in _batches(rad, split["test"])])
    is_novel = outputs["novelty"] > 1
    warnings: NoveltyWarnings = {"images": len(is_novel), "fraction": float(np.mean(is_novel))}
    about: About = {
        "classes": metadata["classes"],
        "size": params.ingest.image_size,
        "crop": params.ingest.crop,
        "preprocessing": PREPROCESSING,
        "weights": weights,
        "weighting_scheme": vote["scheme"],
        "calibration": calibration,
        "decision": vote["decision"],
        "heat_scale": scale,
        "novelty": {"warn_above": 1.0, "of_test_images": warnings},
        "training_images": describe_training_images(
            [metadata["images"][row] for row in split["training"]],
            params.split.near_duplicate_bits,
            with_hashes=params.export.training_hashes,
        ),
        "metrics": read_ensemble_metrics(),
        "disclaimer": DISCLAIMER,
    }
    save_model(model, ENSEMBLE, about)
    with RadReader() as rad:
        differences = write_formats(
            params.export.formats, model, about, lambda: _batches(rad, split["test"]), outputs
        )
    return {"novelty_warnings_of_test_images": warnings, "largest_difference": differences}


def _fit_novelty(rad: RadReader, split: Split, false_alarms: float) -> keras.Model:
    """Fit a model of novelty to the training images."""
    shape, training = rad.shape[1:], split["training"]
    thumbnail = thumbnailer(shape)
    thumbnails = [
        thumbnail.predict_on_batch(images.astype(np.float32)) for images in _batches(rad, training)
    ]
    groups = np.array(split["groups"])[training]
    fitted = fit_novelty(np.concatenate(thumbnails).astype(np.float64), groups, false_alarms)
    return novelty_model(shape, *fitted)


def describe_training_images(
    images: list[Image], bits: int | None, with_hashes: bool = True
) -> TrainingImages:
    """Return what an image is compared with to recognize a near duplicate of a training image."""
    hashes = sorted(image["perceptual_hashes"] for image in images)
    contents = "\n".join(sorted(image["sha256"] for image in images))
    return {
        "count": len(images),
        "sha256": hashlib.sha256(contents.encode()).hexdigest(),
        "near_duplicate_bits": NEAR_DUPLICATE_BITS if bits is None else bits,
        "perceptual_hashes": hashes if with_hashes else None,
    }


def _batches(rad: RadReader, rows: list[int]) -> Iterator[np.ndarray]:
    """Return the images at these rows, batch by batch."""
    starts = range(0, len(rows), BATCH_SIZE)
    return (rad.images(rows[start : start + BATCH_SIZE]) for start in starts)
