"""Synthetic slices to try the ensemble on."""

from pathlib import Path

from brainmri.images.phantoms import draw_phantom, to_png

KINDS = ("no", "glioma", "meningioma", "pituitary")
PER_KIND = 2
SEED = 1000  # draws none of the built-in images


def write_examples(folder: Path) -> list[str]:
    """Write slices of each kind as PNG files to a new folder, and return their paths."""
    folder.mkdir(parents=True)
    paths = []
    for index in range(PER_KIND):
        for kind in KINDS:
            name = "healthy" if kind == "no" else kind
            path = folder / f"{name} {index + 1}.png"
            path.write_bytes(to_png(draw_phantom(kind, index, SEED).image))
            paths.append(str(path))
    return paths
