"""dvc.yaml names as dependencies of each stage the project's modules that it imports, and no others."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = {
    **yaml.safe_load((ROOT / "data/dvc.yaml").read_text())["stages"],
    **yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"],
}


def modules_of(path: Path, known: frozenset = frozenset()) -> frozenset:
    """The project's files that Python reads when it imports this one, the file itself among them."""
    found = known | {path.relative_to(ROOT).as_posix()}
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            base = ROOT.joinpath(*parts[:depth])
            for file in (base / "__init__.py", base.with_suffix(".py")):
                if file.is_file() and file.relative_to(ROOT).as_posix() not in found:
                    found |= modules_of(file, found)
    return found


def expected(stage: str) -> set[str]:
    script = ROOT / "stages" / f"{stage.replace('-', '_')}.py"
    modules = set(modules_of(script)) | {"stages/__init__.py"}
    if stage == "fan-out":  # it must run whenever a member must
        modules |= expected("train")
    return modules


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_the_modules_it_imports_and_no_others(stage):
    entry = STAGES[stage].get("do", STAGES[stage])
    listed = [dep for dep in entry["deps"] if dep.endswith(".py")]
    assert listed == sorted(listed)
    assert set(listed) == expected(stage)
