"""Run one stage of the pipeline, as dvc.yaml does: `python -m stages NAME`."""

import sys
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

PACKAGES = ("h5py", "jinja2", "PIL", "psutil", "pydantic", "sklearn", "tensorflow")


def main() -> None:
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        sys.exit(
            f"error: {sys.executable} lacks {', '.join(missing)};"
            " activate the environment: source .venv/bin/activate"
        )
    stages = {
        path.stem.replace("_", "-"): path.stem
        for path in sorted(Path(__file__).parent.glob("*.py"))
        if not path.stem.startswith("_")
    }
    name, *arguments = sys.argv[1:] or [""]
    if name not in stages:
        sys.exit(f"error: no stage {name!r}; expected one of {', '.join(stages)}")
    from brainmri.common.stage import run_stage

    stage = import_module(f"stages.{stages[name]}").main
    expected = list(signature(stage).parameters)
    if len(arguments) != len(expected):
        usage = " ".join(["python -m stages", name, *(word.upper() for word in expected)])
        sys.exit(f"error: stage {name} got {len(arguments)} argument(s); expected: {usage}")
    run_stage(lambda: stage(*arguments), name)


if __name__ == "__main__":
    main()
