"""An experiment in a folder of its own is refused if that would lack the source."""

import os
import sys
from pathlib import Path

import pytest

from brainmri.common import experiments
from brainmri.common.errors import UserError
from tests.support.trees import make_tree


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        ("exp run --queue", []),
        ("exp run --temp", []),
        ("experiments run --queue --copy-paths a --copy-paths b/c", ["a", "b/c"]),
        ("exp run", None),
        ("exp run --copy-paths a", None),
        ("repro", None),
        ("exp run --no-such-option", None),
    ],
)
def test_experiments_in_their_own_folder_are_recognized(arguments, paths):
    assert experiments.copied_paths(arguments.split()) == paths


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/elsewhere/raw", None),
        ("data/copied/deeper", None),
        ("data/tracked", None),
        ("data/tracked/deeper", None),
        ("data/tracked2", "'data/tracked2/a' is neither in DVC nor in Git"),
        ("data/lost", "tracked by data/lost.dvc, .*it is not in Git"),
        ("data/plain", None),
        (
            "data/link/deeper",
            "'data/link' is a symbolic link, .*give its target: data/plain/deeper",
        ),
        ("../raw", "relative path out of the project, .*absolute path: .*/raw"),
        ("data/unknown", "'data/unknown/a' is neither in DVC nor in Git"),
        ("data/hidden", None),
        ("data/changed", "has changed since data/changed.dvc .*run `dvc add data/changed`"),
    ],
)
def test_paths_must_reach_the_experiment(tmp_path, monkeypatch, path, message):
    (tmp_path / "project/data/plain").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    Path("data/link").symlink_to(Path("data/plain").absolute())

    def tracked_by_dvc(path: str) -> tuple[str, bool] | None:
        name = Path(path).parts[1] if path.startswith("data/") else ""
        is_tracked = name in ("tracked", "lost", "changed")
        return (f"data/{name}.dvc", name == "changed") if is_tracked else None

    files_in_git = {
        ("--", "data/tracked.dvc"): ["data/tracked.dvc"],
        ("--", "data/changed.dvc"): ["data/changed.dvc"],
        ("--others", "--", "data/unknown"): [
            "data/unknown/.DS_Store",
            "data/unknown/a",
            "data/unknown/b",
        ],
        ("--others", "--", "data/tracked2"): ["data/tracked2/a"],
        ("--others", "--", "data/copied/deeper"): ["data/copied/deeper/a"],
        ("--others", "--", "data/hidden"): ["data/hidden/.git/a", "data/hidden/Thumbs.db"],
    }
    monkeypatch.setattr(experiments, "tracked_by_dvc", tracked_by_dvc)
    monkeypatch.setattr(experiments, "git_files", lambda *options: files_in_git.get(options, []))
    command = ["dvc", "exp", "run", "--queue", "--copy-paths", "./data/raw/../copied/"]
    monkeypatch.setattr(sys, "argv", command)
    if message:
        with pytest.raises(UserError, match=f"^data.source: .*{message}"):
            experiments.check_reachable("data.source", path)
    else:
        experiments.check_reachable("data.source", path)
    monkeypatch.setattr(sys, "argv", ["dvc", "repro"])
    experiments.check_reachable("data.source", path)


def test_git_lists_names_of_any_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tree(tmp_path, "a b.png", "é\n.png", "new.png")
    os.system("git init -q . && git add -- 'a b.png' é*")
    assert {*experiments.git_files()} == {"a b.png", "é\n.png"}
    assert experiments.git_files("--others") == ["new.png"]
