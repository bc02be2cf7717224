"""Draws the pipeline: docs/dag.png, by python -m docs.make_dag"""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

WIDTH, HEIGHT = 1.5, 0.62
STAGES = {  # name: place (x, y), what it makes
    "phantom": (0, 3, "synthetic slices"),
    "ingest": (2, 3, "HDF5 store: the RAD"),
    "split": (4, 3, "test fold"),
    "bootstrap-sample": (6, 3, "in-bag, out-of-bag"),
    "fan-out": (0, 1.5, "trains side by side"),
    "train@member-00": (2, 2.2, "CNN"),
    "train@member-01": (2, 1.5, "CNN"),
    "train@member-…": (2, 0.8, "CNN"),
    "weigh": (4, 1.5, "votes, calibration"),
    "evaluate": (6, 1.5, "figures, pictures"),
    "export": (2, 0, "one model file"),
    "explain": (4, 0, "heat maps"),
    "report": (6, 0, "one page"),
}
ARROWS = ["phantom ingest", "ingest split", "split bootstrap-sample", "weigh evaluate", "export explain", "explain report"]
MEMBERS = [name for name in STAGES if name.startswith("train")]
ARROWS += [f"fan-out {name}" for name in MEMBERS] + [f"{name} weigh" for name in MEMBERS]


def main() -> None:
    figure = Figure((9.5, 4.6), 100, layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.set(xlim=(-0.85, 6.95), ylim=(-0.4, 3.4))
    style = {"arrowstyle": "-|>", "color": "#1b5e8c", "shrinkA": 0, "shrinkB": 0}
    for arrow in ARROWS:
        (x, y, _), (to_x, to_y, _) = (STAGES[name] for name in arrow.split())
        axes.annotate("", (to_x - WIDTH / 2, to_y), (x + WIDTH / 2, y), arrowprops=style)
    for x, y, turn, to_x, to_y in ((6, 3, 2.6, 0, 1.5), (6, 1.5, 0.4, 2, 0)):  # to the next row
        axes.plot([x, x, to_x, to_x], [y - HEIGHT / 2, turn, turn, to_y + HEIGHT / 2], color="#1b5e8c", linewidth=1)
        axes.annotate("", (to_x, to_y + HEIGHT / 2), (to_x, turn), arrowprops=style)
    for name, (x, y, makes) in STAGES.items():
        box = (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT
        colour = "#f6f8fa" if name == "phantom" else "#e3eef5"
        axes.add_patch(FancyBboxPatch(*box, boxstyle="round,pad=0,rounding_size=0.08", facecolor=colour, edgecolor="#1b5e8c"))
        axes.text(x, y + 0.13, name, ha="center", va="center", fontsize=9.5, weight="bold")
        axes.text(x, y - 0.15, makes, ha="center", va="center", fontsize=8.5)
    FigureCanvasAgg(figure).print_png(Path("docs/dag.png"), metadata={"Software": None})


if __name__ == "__main__":
    main()
