"""Writes docs/parameters.md from the description of the parameters: python -m docs.make_parameters"""

from pathlib import Path

import yaml

from stages.shared.params import Params, Recipe, Section

HEAD = """# Parameters

All stand in `params.yaml`, without comments, since `dvc exp run` writes that file anew. This page is made by `make docs`.

Change one for a run with `dvc exp run -S NAME=VALUE`, or edit the file and run `dvc exp run`. Plain `dvc repro` also takes
edits, except of `members`, `recipes`, `seed` and `network.weights`: the block `ensemble` is derived from these, which
`dvc exp run` does.
`-S preset=NAME` sets those of a seed project at once (docs/evaluation.md).
A new recipe: `-S '+recipes.mine={l1: 0.0, l2: 0.001, dropout: 0.4, learning_rate: 0.002, augment: 1.0, fraction: 1.0}'`.

"""


def markdown_table(defaults: dict) -> str:
    """The parameters that a person edits, with the values given as defaults, as a table in Markdown."""
    lines = ["| parameter | default | meaning |", "| --- | --- | --- |"]

    def add(model: type[Section], values: dict, prefix: str) -> None:
        for name, about in model.model_fields.items():
            value = values[name]
            if name == "ensemble":
                continue
            if about.description and not isinstance(value, dict):
                lines.append(f"| `{prefix}{name}` | `{yaml.safe_dump(value).split(chr(10))[0]}` | {about.description} |")
            elif name == "recipes":
                lines.append(f"| `recipes` | {', '.join(f'`{recipe}`' for recipe in value)} | {about.description} |")
                first, recipe = next(iter(value.items()))
                add(Recipe, recipe, f"recipes.{first}.")
            else:
                add(about.annotation, value, f"{prefix}{name}.")

    add(Params, defaults, "")
    return "\n".join(lines)


if __name__ == "__main__":
    table = markdown_table(yaml.safe_load(Path("params.yaml").read_text("utf-8")))
    Path("docs/parameters.md").write_text(HEAD + table + "\n", "utf-8")
