"""What this project relies on in DVC beyond its documentation, and how `make` configures DVC."""

import inspect
import re
import shutil
from html.parser import HTMLParser
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import dvc
import pytest
import yaml
from dvc.rwlock import SCHEMA as RUNNING_SCHEMA

from brainmri import configure
from brainmri.parallel.stale import up_to_date
from tests.support.checkout import ROOT
from tests.support.project import Project

MEMBERS = ["member-00", "member-01"]
PIPELINE = """
stages:
  train:
    foreach: ${ensemble}
    do:
      cmd: cp input.txt model-${key}.txt
      deps:
      - input.txt
      params:
      - ensemble.${key}
      outs:
      - model-${key}.txt
"""
# Who uses it, the module of DVC, what is used of it, and the parameters that are given
PRIVATE_API = [
    ("brainmri/parallel/stale.py", "dvc.repo", "Repo", {"_wait_for_lock"}),
    ("brainmri/parallel/stale.py", "dvc.repo", "Repo.__enter__", {"self"}),
    ("brainmri/parallel/stale.py", "dvc.repo", "lock_repo", {"repo"}),
    ("brainmri/parallel/stale.py", "dvc.repo.stage", "StageLoad.collect", {"target"}),
    ("brainmri/parallel/stale.py", "dvc.stage", "Stage", {"deps", "outs"}),
    ("brainmri/parallel/stale.py", "dvc.stage", "Stage.addressing", set()),
    ("brainmri/parallel/stale.py", "dvc.stage", "Stage.changed", {"self"}),
    ("brainmri/parallel/stale.py", "dvc.stage", "Stage.deps_cached", {"self"}),
    ("brainmri/parallel/stale.py", "dvc.stage", "Stage.save_deps", {"self"}),
    ("brainmri/parallel/stale.py", "dvc.stage.cache", "RunCacheNotFoundError", {"stage"}),
    ("brainmri/parallel/stale.py", "dvc.stage.cache", "StageCache.restore", {"stage", "dry"}),
    ("brainmri/parallel/stale.py", "dvc.dependency.param", "ParamsDependency", {"params"}),
    (
        "brainmri/parallel/stale.py",
        "dvc.dependency.param",
        "ParamsDependency.read_params",
        {"flatten"},
    ),
    ("brainmri/parallel/stale.py", "dvc.utils.serialize", "load_yaml", {"path"}),
    ("brainmri/parallel/stale.py", "dvc_data.hashfile.hash_info", "HashInfo", set()),
    ("brainmri/common/experiments.py", "dvc.cli", "DvcParserError", set()),
    ("brainmri/common/experiments.py", "dvc.cli", "parse_args", {"argv"}),
    ("brainmri/common/experiments.py", "dvc.repo", "Repo.index", set()),
    ("brainmri/common/experiments.py", "dvc.output", "Output.workspace_status", {"self"}),
    ("brainmri/crossval/experiments.py", "dvc.output", "Output", {"stage", "path", "cache"}),
    ("brainmri/crossval/experiments.py", "dvc.output", "Output.get_hash", {"self"}),
    ("brainmri/crossval/experiments.py", "dvc.stage", "Stage.is_data_source", set()),
    ("brainmri/crossval/experiments.py", "dvc.utils.hydra", "compose_and_dump", set()),
    ("brainmri/repair/cache.py", "dvc.config", "Config", {"dvc_dir"}),
    ("brainmri/configure.py", "dvc.config", "Config.edit", {"level"}),
]


def parameters_of(module: str, name: str) -> set[str] | None:
    """Return the parameters of a function or class of DVC's; None if there is none of that name."""
    try:
        used = attrgetter(name)(import_module(module))
    except (ImportError, AttributeError):
        return None
    return set(inspect.signature(used).parameters) if callable(used) else set()


@pytest.mark.parametrize(("user", "module", "name", "parameters"), PRIVATE_API)
def test_private_api(user, module, name, parameters):
    actual = parameters_of(module, name)
    where = f"{user} needs {module}.{name}"
    remedy = f"adapt {user}, or allow only earlier versions of DVC in requirements.txt"
    assert actual is not None, f"{where}, which DVC {dvc.__version__} lacks; {remedy}"
    missing = parameters - actual
    assert not missing, f"{where} with {missing}, unlike in DVC {dvc.__version__}; {remedy}"


@pytest.fixture
def pipeline(tmp_path) -> Project:
    """A repository with a stage for each of two members, as dvc.yaml has them; nothing has run."""
    folder = tmp_path / "project"
    folder.mkdir()
    project = Project(folder)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.run("dvc", "config", "--local", "core.site_cache_dir", str(tmp_path / "site-cache"))
    ensemble = {name: {"seed": seed} for seed, name in enumerate(MEMBERS)}
    (folder / "params.yaml").write_text(yaml.safe_dump({"ensemble": ensemble}))
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "input.txt").write_text("input")
    return project


def test_members_that_repro_would_not_train(pipeline, monkeypatch):
    """They are unchanged, or in the run cache with all their outputs."""
    monkeypatch.chdir(pipeline.path)
    cases = []

    def ask(case: str, expected: set[str]) -> None:
        cases.append((case, up_to_date(MEMBERS), expected))

    ask("nothing has run", set())
    pipeline.run("dvc", "repro")
    ask("all have run", {*MEMBERS})
    pipeline.edit(**{"ensemble__member-01__seed": 7})
    ask("a parameter of one is new", {"member-00"})
    pipeline.run("dvc", "repro")
    pipeline.edit(**{"ensemble__member-01__seed": 1})
    ask("a parameter has a former value again", {*MEMBERS})
    (pipeline.path / "input.txt").write_text("changed")
    ask("a dependency of all is new", set())
    (pipeline.path / "input.txt").write_text("input")
    lock = pipeline.read("dvc.lock")
    ask("a dependency has a former content again", {*MEMBERS})
    assert pipeline.read("dvc.lock") == lock
    (pipeline.path / "model-member-00.txt").unlink()
    ask("an output is in the cache alone", {*MEMBERS})
    shutil.rmtree(pipeline.path / ".dvc/cache/files")
    ask("no output is in the cache", set())
    for case, actual, expected in cases:
        assert actual == expected, (
            f"where {case}, brainmri/parallel/stale.py returns {actual or 'none'} with DVC"
            f" {dvc.__version__}; expected {expected or 'none'}: adapt it, or allow only earlier"
            " versions of DVC in requirements.txt"
        )


def test_list_of_running_commands():
    """conf/hydra_plugins/ensemble.py reads it."""
    command = {"pid": 1, "cmd": "dvc repro"}
    commands = {"write": {"/project/data": command}, "read": {"/project/data": [command]}}
    assert RUNNING_SCHEMA(commands) == commands


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """The current folder, with the files that the configuration reads."""
    monkeypatch.chdir(tmp_path)
    for name in (".dvc/config", ".dvc/plots/page.html"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, path)
    return tmp_path


def local_setting(clone: Path, name: str) -> str:
    text = (clone / ".dvc/config.local").read_text()
    return re.search(rf"^\s*{name} = (.+)$", text, re.MULTILINE)[1]


@pytest.mark.parametrize("mode", [None, 0o755])
def test_site_cache_is_private(clone, mode):
    """DVC keeps pickles there, which run code when they are read."""
    site_cache = clone / ".dvc/site-cache"
    if mode:
        site_cache.mkdir(mode)
    configure.main()
    assert site_cache.stat().st_mode & 0o777 == 0o700
    assert local_setting(clone, "site_cache_dir") == str(site_cache)


def test_template_of_the_plots_page_has_its_library(clone):
    configure.main()
    before = (clone / ".dvc/config.local").read_text()
    configure.main()
    assert (clone / ".dvc/config.local").read_text() == before
    template = Path(local_setting(clone, "html_template"))
    assert template.is_absolute()
    page = template.read_text("utf-8")
    assert "window.vegaEmbed=" in page
    assert "{scripts}" not in page
    for placeholder in ("{plot_divs}", "{refresh_tag}"):
        assert page.count(placeholder) == 1


def tags_of(page: str) -> list[tuple[str, dict[str, str]]]:
    """Return the tags of a page, with their attributes."""
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    return tags


def test_plots_page_needs_no_network(done, tmp_path):
    """And its folder can be moved as a whole."""
    done.run("dvc", "plots", "show", "-o", str(tmp_path / "page"))
    folder = (tmp_path / "page").rename(tmp_path / "elsewhere")
    page = (folder / "index.html").read_text("utf-8")
    tags = tags_of(page)
    sources = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(sources) == 8
    for source in sources:
        image = (folder / source).resolve()
        assert image.is_relative_to(folder.resolve())
        assert image.read_bytes().startswith(b"\x89PNG")
    links = [tag for tag, attributes in tags if {"src", "href"} & attributes.keys()]
    assert links == ["img"] * 8
    assert "window.vegaEmbed=" in page
    assert page.count("vegaEmbed('#") >= 6
