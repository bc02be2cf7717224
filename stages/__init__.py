"""The stages of the pipeline: one script each, run by DVC as `python -m stages.NAME` from the project's root."""

import sys
from importlib.util import find_spec

if missing := [name for name in ("h5py", "PIL", "psutil", "pydantic", "sklearn", "tensorflow") if find_spec(name) is None]:
    sys.exit(f"error: {sys.executable} lacks {', '.join(missing)}; activate the environment: source .venv/bin/activate")
