"""Write docs/parameters.md from the descriptions in brainmri/common/params.py.

python -m docs.make_parameters
"""

from pathlib import Path
from typing import get_args

import yaml

from brainmri.common.params import Params, Recipe, Section
from brainmri.common.paths import PARAMS

OUTPUT = Path("docs/parameters.md")
HEAD = """# Parameters

All are in `params.yaml`, whose comments `dvc exp run` would drop; `make docs` writes this page.

Change one for a run with `dvc exp run -S NAME=VALUE`, or edit the file and run `dvc exp run`.
Plain `dvc repro` also takes edits, except of `members`, `recipes`, `seed`, `network`,
`data.labels` and `data.test`: `ensemble` and `further_input` are derived from these, which
`dvc exp run` does.
`-S preset=NAME` sets those of a preset at once (docs/evaluation.md): `fine-tuned`, `frozen`,
`scratch`, or a seed project.
A new recipe: `-S '+recipes.mine={l1: 0.0, l2: 0.001, dropout: 0.4, learning_rate: 0.002, \
augment: 1.0, fraction: 1.0}'`.

"""
NOT_EDITED = ("about", "ensemble", "further_input")


def main() -> None:
    defaults = yaml.safe_load(PARAMS.read_text("utf-8"))
    OUTPUT.write_text(HEAD + markdown_table(defaults) + "\n", "utf-8")


def markdown_table(defaults: dict) -> str:
    """Return a Markdown table of the parameters that a user edits.

    Parameters
    ----------
    defaults : dict
        Content of params.yaml.
    """
    header = ["| parameter | default | meaning |", "| --- | --- | --- |"]
    return "\n".join([*header, *_rows(Params, defaults, "")])


def _rows(section: type[Section], defaults: dict, prefix: str) -> list[str]:
    rows = []
    for name, field in section.model_fields.items():
        if name in NOT_EDITED:
            continue
        if name not in defaults:
            rows.append(_row(f"{prefix}{name}", "", field.description))
            continue
        default = defaults[name]
        if name == "recipes":
            names = ", ".join(f"`{recipe}`" for recipe in default)
            rows.append(_row(name, names, field.description))
            first = next(iter(default))
            rows += _rows(Recipe, default[first], f"{name}.{first}.")
        elif isinstance(default, dict):
            kind = next(iter(get_args(field.annotation)), field.annotation)
            rows += _rows(kind, default, f"{prefix}{name}.")
        else:
            value = yaml.safe_dump(default, default_flow_style=True).splitlines()[0]
            rows.append(_row(f"{prefix}{name}", f"`{value}`", field.description))
    return rows


def _row(name: str, default: str, meaning: str) -> str:
    return f"| `{name}` | {default} | {meaning} |"


if __name__ == "__main__":
    main()
