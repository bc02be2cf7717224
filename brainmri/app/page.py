"""The page of the app, built with Gradio."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import gradio as gr
from gradio.components import Component
from starlette.middleware import Middleware

from brainmri.app.predictions import Gallery, Table
from brainmri.app.requests import CheckedRequests
from brainmri.report.rendering import TEMPLATES

SUFFIXES = [".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".dcm"]
MAX_FILE_SIZE = "20mb"
MAX_WAITING = 16  # predictions that wait for others
HOUR, DAY = 3600, 86_400  # seconds
INTRODUCTION = """
# Brain MRI ensemble
**Not for clinical use.** Drop slices here, or click an example. Beside each image, the evidence for
a finding (of more than two classes, for the predicted one) is laid over it, on one scale for all
images: without evidence it stays dark.
"""
STYLES = [TEMPLATES / "colors.css", Path(__file__).with_name("page.css")]


def build_page(
    predict: Callable[[list[str]], tuple[Table, Table, Gallery]], examples: list[str]
) -> gr.Blocks:
    """Build the page: images in, predictions and overlays out.

    Parameters
    ----------
    predict : callable
        From paths of image files to what `brainmri.app.predictions.predict_files` returns.
    examples : list of str
        Paths of image files that can be clicked.
    """
    deletion = (HOUR, DAY)  # each hour, of files that are a day old
    with gr.Blocks(
        title="Brain MRI ensemble", analytics_enabled=False, delete_cache=deletion
    ) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=1):
                files = gr.File(
                    label="Images", file_count="multiple", file_types=SUFFIXES, elem_id="images"
                )
                example_gallery = gr.Gallery(
                    [(path, Path(path).stem) for path in examples],
                    label="Synthetic examples",
                    columns=3,
                    height="auto",
                    allow_preview=False,
                    buttons=[],
                    elem_id="examples",
                )
            with gr.Column(scale=2):
                tables = [*hidden_table("predictions"), *hidden_table("patients")]
                overlays = gr.Gallery(
                    label="Evidence for a finding",
                    columns=2,
                    height="auto",
                    object_fit="contain",
                    format="png",
                    elem_id="overlays",
                )

        def show(paths: list[str] | None) -> list[Component | Gallery]:
            images, patients, gallery = predict(paths)
            return [
                *shown_table("predictions", images),
                *shown_table("patients", patients),
                gallery,
            ]

        def show_example(event: gr.SelectData) -> list[Component | Gallery]:
            return show([examples[event.index]])

        outputs = [*tables, overlays]
        # One prediction at a time
        settings = {"api_visibility": "private", "concurrency_id": "predictions"}
        files.change(show, files, outputs, **settings)
        example_gallery.select(show_example, None, outputs, **settings)
    return page.queue(max_size=MAX_WAITING, api_open=False)


def hidden_table(name: str) -> tuple[gr.Dataframe, gr.DownloadButton]:
    """Return a table without rows, and the button that downloads its CSV, named by what it has."""
    table = gr.Dataframe(interactive=False, visible=False, wrap=True, elem_id=name)
    return table, gr.DownloadButton("Download CSV", visible=False, elem_id=f"download-{name}")


def shown_table(name: str, table: Table) -> tuple[gr.Dataframe, gr.DownloadButton]:
    """Return what replaces the `hidden_table`; without rows, it stays hidden."""
    label = f"{name.capitalize()}: click a column's title to sort"
    dataframe = gr.Dataframe(
        headers=table.header or None,
        value=table.rows,
        label=f"{label}; {table.note}" if table.note else label,
        visible=bool(table.rows),
    )
    file = write_download(f"{name}.csv", table.csv) if table.csv else None
    return dataframe, gr.DownloadButton(value=file, visible=bool(file))


def make_theme() -> gr.themes.Default:
    """Return Gradio's theme with the font and the colors of the report; dark ones are Gradio's."""
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return theme.set(
        body_text_color="var(--ink)",
        block_label_text_color="var(--muted)",
        border_color_primary="var(--line)",
        button_secondary_background_fill="var(--panel)",
        button_secondary_background_fill_hover="var(--line)",
        button_secondary_text_color="var(--ink)",
        color_accent="var(--accent)",
        link_text_color="var(--accent)",
        table_odd_background_fill="white",
        table_row_focus="var(--panel)",
    )


def write_download(name: str, content: bytes) -> str:
    """Write a file that the page offers for download, among the uploads; return its path."""
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    path = folder / name
    path.write_bytes(content)
    return str(path)


def serve(page: gr.Blocks, port: int | None, examples: Path, uploads: Path) -> None:
    """Serve the page on the loopback interface until the app is interrupted.

    Parameters
    ----------
    page : gr.Blocks
    port : int, optional
        None: the first free one from 7860.
    examples : Path
        Folder of the examples, which the page may read.
    uploads : Path
        Folder of the uploads; see `CheckedRequests`.
    """
    page.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        ssr_mode=False,
        max_file_size=MAX_FILE_SIZE,
        allowed_paths=[str(examples)],
        footer_links=[],
        app_kwargs={"middleware": [Middleware(CheckedRequests, uploads=uploads)]},
        css_paths=STYLES,
        theme=make_theme(),
    )
