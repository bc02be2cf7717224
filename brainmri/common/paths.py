"""Paths of all files that the pipeline reads and writes, relative to the project's root."""

from pathlib import Path

PARAMS = Path("params.yaml")
PIPELINES = (Path("data/dvc.yaml"), Path("dvc.yaml"))
LOCK_FILES = (Path("data/dvc.lock"), Path("dvc.lock"))

PHANTOM = Path("data/phantom")
# What `ingest` depends on if there is neither a table of labels nor a folder of test images, and
# members if there is no weights file or there are no features
NO_FURTHER_INPUT = Path("data/README.md")
NO_WEIGHTS_FILE = Path("data/weights/README.md")
NO_FEATURES = Path("data/README.md")
IMAGENET_WEIGHTS = Path("data/weights/efficientnet-lite0.weights.h5")
STORE = Path("data/rad")
STORE_INDEX = STORE / "image_data.h5"
METADATA = STORE / "metadata.json"
FEATURES = Path("data/features")
SPLIT = Path("data/split.json")
SAMPLES = Path("data/bootstrap")
FAN_OUT_MARKER = Path("data/fan-out.json")

MEMBERS = Path("models/members")
VOTING_WEIGHTS = Path("models/weights.json")
ENSEMBLE = Path("models/ensemble.keras")
EXPORTED = Path("models/exported")  # what `export.formats` asks for besides
EXPORTED_ABOUT = EXPORTED / "about.json"
SAVED_MODEL = EXPORTED / "saved_model"
ONNX_MODEL = EXPORTED / "ensemble.onnx"
LITERT_MODEL = EXPORTED / "ensemble.tflite"
EXPLANATIONS = Path("models/explanations.npz")

INGEST_METRICS = Path("metrics/ingest.json")
MEMBER_METRICS = Path("metrics/members")
ENSEMBLE_METRICS = Path("metrics/ensemble.json")
EXPORT_METRICS = Path("metrics/export.json")
EXPLAIN_METRICS = Path("metrics/explain.json")
CROSSVAL_METRICS = Path("metrics/crossval.json")
AUDIT_METRICS = Path("metrics/data_audit.json")

PLOTS = Path("plots")
PLOT_DATA = PLOTS / "data"
EVALUATION_PLOTS = PLOTS / "evaluation"
EXPLANATION_PLOT = PLOTS / "explanations.png"
REPORT = PLOTS / "report.html"
AUDIT = PLOTS / "data_audit.html"
AUDIT_TABLES = PLOTS / "data_audit"
MODEL_CARD = Path("docs/model-card.md")

# Not tracked, and read by no stage
DECODE_CACHE = Path(".dvc/tmp/ingest")
AUDIT_CACHE = Path(".dvc/tmp/audit.json")
STAGING = Path(".dvc/tmp/members")
LOGS = Path(".dvc/tmp/fan-out")
TIMINGS = Path(".dvc/tmp/timings.jsonl")
