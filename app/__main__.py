"""A page on this machine to try the ensemble with: drop images, or click an example.

    make app              (or: python -m app --port 7860)

It listens on loopback only, asks nothing of any other machine, and deletes what was uploaded when it ends.
"""

import os
import tempfile

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import html
import sys
from collections.abc import Callable
from pathlib import Path

from predict.prediction import Prediction, overlays, predictions
from stages.shared.errors import UserError
from stages.shared.images import ImageError, decode_all
from stages.shared.machine import usable_cores
from stages.shared.models import load_ensemble
from stages.shared.phantoms import draw_numbered, to_png

import gradio as gr  # isort: skip, TensorFlow is imported faster before it

SUFFIXES = [".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"]
MAX_FILE, MAX_FILES = "20mb", 64
EXAMPLES = ("no", "glioma", "meningioma", "pituitary")
EXAMPLE_SEED = 1000  # none of the built-in images
WORDS = """
# Brain MRI ensemble
**Not for clinical use.** Drop slices here, or click an example. Beside each image the evidence for a finding (of more than two
classes, for the predicted one) is laid over it, on one scale for all images: without evidence it stays dark.
"""
Told = tuple[str, list[tuple]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=None, help="of the page; default: the first free one from 7860")
    parser.add_argument("--model", default="models/ensemble.keras", metavar="FILE", help="the ensemble; default: %(default)s")
    options = parser.parse_args()
    model, about = load_ensemble(options.model)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        page = make_page(lambda files: tell(files, model, about), make_examples(Path(folder) / "examples"))
        page.launch(
            server_name="127.0.0.1",
            server_port=options.port,
            share=False,
            ssr_mode=False,
            max_file_size=MAX_FILE,
            allowed_paths=[str(Path(folder) / "examples")],
            footer_links=[],
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        )


def make_page(tell: Callable[[list[str]], Told], examples: list[str]) -> gr.Blocks:
    """The page: images in, figures and overlays out."""
    with gr.Blocks(title="Brain MRI ensemble", analytics_enabled=False) as page:
        gr.Markdown(WORDS)
        with gr.Row():
            with gr.Column(scale=1):
                files = gr.File(label="Images", file_count="multiple", file_types=SUFFIXES, elem_id="images")
                shelf = gr.Gallery(
                    [(path, Path(path).stem) for path in examples],
                    label="Synthetic examples",
                    columns=3,
                    height="auto",
                    allow_preview=False,
                    buttons=[],
                    elem_id="examples",
                )
            with gr.Column(scale=2):
                figures = gr.HTML(elem_id="figures")
                pictures = gr.Gallery(label="Evidence, by place", columns=2, height="auto", format="png", elem_id="pictures")

        def pick(event: gr.SelectData) -> Told:
            return tell([examples[event.index]])

        files.change(tell, files, [figures, pictures], api_visibility="private")
        shelf.select(pick, None, [figures, pictures], api_visibility="private")
    return page


def make_examples(folder: Path) -> list[str]:
    """Synthetic slices, two of each kind, as PNG files."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(2):
        for kind in EXAMPLES:
            path = folder / f"{'healthy' if kind == 'no' else kind} {number + 1}.png"
            path.write_bytes(to_png(draw_numbered(kind, number, EXAMPLE_SEED).image))
            paths.append(str(path))
    return paths


def tell(files: list[str] | None, model, about: dict) -> Told:
    """A table of what the ensemble tells of the files, as HTML, and images with their captions."""
    if not files:
        return "", []
    paths = [Path(file) for file in files[:MAX_FILES]]
    decoded = list(decode_all(paths, about["size"], about["crop"], usable_cores()))
    told = list(predictions(((path, picture) for path, picture in decoded if not isinstance(picture, ImageError)), model, about))
    failed = [(path.name, str(error)) for path, error in decoded if isinstance(error, ImageError)]
    failed += [(Path(file).name, f"more than {MAX_FILES} images at once") for file in files[MAX_FILES:]]
    warm = overlays(told, model, about) if told else []
    captions = [f"{one.path.name}: {about['classes'][one.probabilities.argmax()]} {one.probabilities.max():.2f}" for one in told]
    return as_table(told, failed, about["classes"]), list(zip(warm, captions, strict=True))


def as_table(told: list[Prediction], failed: list[tuple[str, str]], classes: list[str]) -> str:
    rows = []
    for one in told:
        bars = "".join(bar(html.escape(name), value) for name, value in zip(classes, one.probabilities, strict=True))
        unlike = f"<b>unlike the training images</b> ({one.novelty:.1f}; above 1 warns)" if one.novelty > 1 else ""
        cells = [html.escape(one.path.name), bars, f"{one.entropy:.3f}", f"{one.mutual_information:.3f}", unlike]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    rows += [
        f"<tr><td>{html.escape(name)}</td><td colspan='4'><b>can't be read:</b> {html.escape(why)}</td></tr>"
        for name, why in failed
    ]
    head = "".join(
        f"<th>{name}</th>" for name in ("image", "probability", "entropy, nats", "disagreement (mutual information), nats", "")
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def bar(name: str, share: float) -> str:
    style = "display: grid; grid-template-columns: 6em 8em 4em; align-items: center"
    return f"<div style='{style}'>{name} <progress style='width: 7em' value='{share:.4f}' max='1'></progress> {share:.3f}</div>"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:  # Gradio's of a port that is taken
        sys.exit(f"error: {error}")
