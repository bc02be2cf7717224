"""Write the report, one page that needs no network and no other file, and the model card.

    dvc repro report

Reads   metrics, plots, data/rad/metadata.json, data/split.json, models/weights.json;
        params: all but `fan_out`
Writes  plots/report.html   every metric and plot of the run
        docs/model-card.md
"""

from brainmri.common.files import read_json, write_bytes
from brainmri.common.params import load_params
from brainmri.common.paths import EXPLAIN_METRICS, EXPORT_METRICS, MODEL_CARD, REPORT
from brainmri.evaluation.results import (
    ExplainMetrics,
    ExportMetrics,
    read_ensemble_metrics,
    read_out_of_bag,
    read_voting_weights,
)
from brainmri.report.model_card import render_model_card
from brainmri.report.page import render_page
from brainmri.report.run import Run
from brainmri.sampling.files import read_split
from brainmri.store.metadata import read_metadata


def main() -> None:
    params = load_params()
    metadata = read_metadata()
    ensemble = read_ensemble_metrics()
    explain = read_json(EXPLAIN_METRICS, ExplainMetrics)
    export = read_json(EXPORT_METRICS, ExportMetrics)
    split = read_split(len(metadata["images"]))
    weights = read_voting_weights(list(params.ensemble), metadata["classes"])["members"]
    run = Run(
        params=params,
        metadata=metadata,
        split=split,
        ensemble=ensemble,
        weights=weights,
        out_of_bag={name: read_out_of_bag(name) for name in weights},
        explain=explain,
        export=export,
    )
    write_bytes(REPORT, render_page(run))
    write_bytes(MODEL_CARD, render_model_card(run))
    print(f"{REPORT}: one page with every metric and plot")
