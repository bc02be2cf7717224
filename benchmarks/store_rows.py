"""Rows about the store: metrics that `benchmarks.rates.store` measures, compared in pairs."""

import statistics
from dataclasses import dataclass

from benchmarks.table import Row

MAX_INGEST_MEMORY = 400  # MiB
BYTES_PER_MIB = 2**20


@dataclass(frozen=True)
class Comparison:
    """Two of the metrics, and the goal of their ratio.

    Attributes
    ----------
    name, baseline : str
        What is compared, in words.
    metric, baseline_metric : str
        Keys of the metrics.
    goal : float
    unit : {"s", "MiB", "images/s"}
    at_most : bool
        See `Row`.
    """

    name: str
    metric: str
    baseline_metric: str
    goal: float
    unit: str
    baseline: str
    at_most: bool = True


FROM_SCRATCH = "all 20,000 from scratch"
SCATTERED = "adding 200 images with scattered names"
CHANGES = [
    Comparison("adding 200 images, `ingest`", "added", "full", 0.1, "s", FROM_SCRATCH),
    Comparison("adding 200 images, new bytes", "bytes added", "bytes", 0.05, "MiB", "the store"),
    Comparison("relabeling 200 images, `ingest`", "relabeled", "full", 0.1, "s", FROM_SCRATCH),
    Comparison(
        "relabeling 200 images, new bytes", "bytes relabeled", "bytes", 0.05, "MiB", "the store"
    ),
    Comparison("removing 200 images, `ingest`", "removed", "full", 0.1, "s", FROM_SCRATCH),
    Comparison(
        "removing 200 images, new bytes", "bytes removed", "bytes", 0.05, "MiB", "the store"
    ),
    Comparison(f"{SCATTERED}, `ingest`", "scattered", "full", 0.1, "s", FROM_SCRATCH),
    Comparison(f"{SCATTERED}, new bytes", "bytes scattered", "bytes", 0.05, "MiB", "the store"),
    Comparison(
        "adding 200 images, `dvc repro ingest`", "dvc, added", "dvc, full", 0.1, "s", FROM_SCRATCH
    ),
    Comparison(
        "adding 200 images, new bytes in DVC's cache",
        "cache added",
        "cache",
        0.05,
        "MiB",
        "the cache",
    ),
    Comparison("`ingest` without changes", "nothing new", "full", 0.1, "s", FROM_SCRATCH),
]
SCALING_AND_READING = [
    Comparison(
        "`ingest` of 40,000 images", "full, twice the images", "full", 2.2, "s", "20,000 images"
    ),
    Comparison(
        "random batches of 32, two processes",
        "random",
        "memory map",
        0.5,
        "images/s",
        "NumPy memory map",
        at_most=False,
    ),
    Comparison(
        "random batches of 32, gzip",
        "random, gzip",
        "random",
        0,
        "images/s",
        "uncompressed",
        at_most=False,
    ),
    Comparison("`ingest`, gzip", "full, gzip", "full", 9, "s", "uncompressed"),
    Comparison("size of the store, gzip", "bytes, gzip", "bytes", 1, "MiB", "uncompressed"),
]


def store_rows(rounds: list[dict[str, float]]) -> list[Row]:
    """Return the rows of the table, from the metrics of each round; print each ratio."""
    return [
        *[compare_metrics(comparison, rounds) for comparison in CHANGES],
        count_differing_files(rounds),
        *compare_peak_memory(rounds),
        *[compare_metrics(comparison, rounds) for comparison in SCALING_AND_READING],
    ]


def compare_metrics(comparison: Comparison, rounds: list[dict[str, float]]) -> Row:
    """Compare two metrics by the medians of both and of their ratio."""
    metric, baseline_metric = comparison.metric, comparison.baseline_metric
    ratio = statistics.median(metrics[metric] / metrics[baseline_metric] for metrics in rounds)
    print(f"{comparison.name}: {ratio:.3f}", flush=True)
    measured = format_value(median_of(metric, rounds), comparison.unit)
    baseline = format_value(median_of(baseline_metric, rounds), comparison.unit)
    return Row(
        comparison.name,
        measured,
        f"{baseline}: {comparison.baseline}",
        ratio,
        comparison.goal,
        comparison.at_most,
    )


def count_differing_files(rounds: list[dict[str, float]]) -> Row:
    """Compare the files of stores that were changed with those of stores built from scratch."""
    differing = max(metrics["differing"] for metrics in rounds)
    name = "files that differ from those of a store built from scratch"
    return Row(name, str(differing), "none", differing, 0, at_most=True)


def compare_peak_memory(rounds: list[dict[str, float]]) -> list[Row]:
    """Compare the peak memory of `ingest` with its limit, and with that for a tenth of the images.

    The metrics are in MiB.
    """
    name = "peak memory of `ingest`"
    peak = median_of("peak", rounds)
    tenth = median_of("peak of a tenth", rounds)
    measured = f"{peak:.0f} MiB"
    limit = f"{MAX_INGEST_MEMORY} MiB"
    return [
        Row(name, measured, limit, peak / MAX_INGEST_MEMORY, 1, at_most=True),
        Row(name, measured, f"{tenth:.0f} MiB: 2,000 images", peak / tenth, 1.1, at_most=True),
    ]


def median_of(metric: str, rounds: list[dict[str, float]]) -> float:
    """Compute the median of a metric over the rounds."""
    return statistics.median(metrics[metric] for metrics in rounds)


def format_value(value: float, unit: str) -> str:
    """Format seconds, images per second, or bytes, these in MiB."""
    if unit == "MiB":
        return f"{value / BYTES_PER_MIB:.1f} MiB"
    if unit == "s":
        return f"{value:.2f} s"
    return f"{value:.0f} {unit}"
