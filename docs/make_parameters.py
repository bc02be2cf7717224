"""Write docs/parameters.md from the schema in brainmri/common/params.py.

python -m docs.make_parameters
"""

from pathlib import Path
from typing import get_args

import yaml

from brainmri.common.params import MIN_IMAGE_SIZE, Params, Recipe, Section
from brainmri.common.paths import PARAMS

OUTPUT = Path("docs/parameters.md")
HEAD = f"""# Parameters

All parameters are in `params.yaml`. `make docs` makes this page from their schema,
`brainmri/common/params.py`.

Change one for a run with `dvc exp run -S NAME=VALUE`, or edit the file and run `dvc exp run`.
`dvc repro` also takes edits, except of `members`, `recipes`, `seed`, `network`, `data.labels` and
`data.test`: `dvc exp run` derives the blocks `ensemble` and `further_input` from these. Do not edit
the derived blocks.

`-S preset=NAME` sets all parameters of a preset: `bagging`, `fine-tuned`, `frozen`, `scratch`, or
one of [the seed projects](evaluation.md#the-seed-projects). This adds a recipe:

```
dvc exp run -S '+recipes.mine={{l1: 0.0, l2: 0.001, dropout: 0.4, learning_rate: 0.002, \
augment: 1.0, fraction: 0.8}}'
```

Rules about several parameters:

- `split.fold` is below `split.folds`.
- `data.test` is null with `data.labels`, and neither `data.test` nor `data.source` is inside the
  other.
- At least two of `phantom.classes` are above 0.
- `network.weights` is `none` for networks without pretrained weights. The same holds for the
  network of a recipe.
- `ingest.image_size` is at least {MIN_IMAGE_SIZE["seed-cnn"]} for `seed-cnn`, and at least \
{MIN_IMAGE_SIZE["vgg16"]} for pretrained networks.
- `train.reduce_lr` is null unless `train.schedule` is `constant`.
- `fraction` of each recipe is below 1 unless `bootstrap.scheme` is `bootstrap`. With `committee`
  it is the same for all recipes, and within 0.01 of 1/2, 2/3, 3/4, 4/5 and so on.
- No recipe is called `size` or `nfiles`, which DVC's run cache ignores.

"""
NOT_EDITED = ("about", "ensemble", "further_input")
GENERAL = "General"
LINK = "[evaluation](evaluation.md#how-many-epochs)"


def main() -> None:
    defaults = yaml.safe_load(PARAMS.read_text("utf-8"))
    OUTPUT.write_text(HEAD + markdown_tables(defaults) + "\n", "utf-8")


def markdown_tables(defaults: dict) -> str:
    """Return Markdown tables of the parameters that a user edits, one for each block.

    Parameters
    ----------
    defaults : dict
        Content of params.yaml.
    """
    blocks: dict[str, list[str]] = {}
    for name, row in _rows(Params, defaults, ""):
        block, dot, _ = name.partition(".")
        blocks.setdefault(block if dot or name == "recipes" else GENERAL, []).append(row)
    header = ["| parameter | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    tables = [["", f"## {block}", "", *header, *rows] for block, rows in blocks.items()]
    return "\n".join(line for table in tables for line in table).lstrip()


def _rows(section: type[Section], defaults: dict, prefix: str) -> list[tuple[str, str]]:
    """Return the name and the row of each parameter of a block."""
    schema = section.model_json_schema()["properties"]
    rows = []
    for name, field in section.model_fields.items():
        if name in NOT_EDITED:
            continue
        full_name, default = f"{prefix}{name}", defaults.get(name)
        if name == "recipes":
            names = ", ".join(f"`{recipe}`" for recipe in default)
            rows.append(_row(name, names, "recipes by name, one or more", field.description))
            first = next(iter(default))
            rows += _rows(Recipe, default[first], f"{name}.{first}.")
        elif default and isinstance(default, dict):
            kind = next(iter(get_args(field.annotation)), field.annotation)
            rows += _rows(kind, default, f"{prefix}{name}.")
        else:
            value = yaml.safe_dump(default, default_flow_style=True).splitlines()[0]
            shown = f"`{value}`" if name in defaults else ""
            rows.append(_row(full_name, shown, describe_values(schema[name]), field.description))
    return rows


def _row(name: str, default: str, allowed: str, meaning: str) -> tuple[str, str]:
    meaning = meaning.replace("docs/evaluation.md", LINK)
    return name, f"| `{name}` | {default} | {allowed} | {meaning} |"


def describe_values(schema: dict) -> str:
    """Describe which values a JSON schema allows, such as "integer, 1 to 999; `null`"."""
    if "anyOf" in schema:
        return "; ".join(map(describe_values, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = {"boolean": "`true`, `false`", "null": "`null`", "string": "text"}.get(schema["type"])
    return kind or ", ".join([schema["type"], *_limits(schema)])


def _limits(schema: dict) -> list[str]:
    """Describe the smallest and the largest number that a JSON schema allows."""
    low, high, below = map(schema.get, ("minimum", "maximum", "exclusiveMaximum"))
    if schema["type"] == "integer" and below is not None:
        high, below = below - 1, None
    if low is not None and high is not None:
        return [f"{low:,} to {high:,}"]
    limits = [f"{low:,} or more"] if low is not None else []
    if (above := schema.get("exclusiveMinimum")) is not None:
        limits.append(f"above {above:,}")
    if high is not None:
        limits.append(f"at most {high:,}")
    if below is not None:
        limits.append(f"below {below:,}")
    return limits


if __name__ == "__main__":
    main()
