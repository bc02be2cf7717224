"""Whatever stands in a file between stages, a stage does its work or says in one line which file is wrong."""

import contextlib
import copy
import functools
import io
import json
from collections.abc import Callable, Iterator

import pytest
from conftest import SMALL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages import bootstrap_sample, report, split, weigh
from stages.shared.errors import UserError
from stages.shared.members import read_predictions
from stages.shared.models import load_ensemble, load_model
from stages.shared.rad import read_metadata, read_sample, read_split
from stages.shared.results import read_vote

IMAGES = SMALL["phantom.classes.no"] + SMALL["phantom.classes.yes"]
CLASSES, MEMBERS = ["no", "yes"], ["member-00", "member-01", "member-02"]
WORK: dict[str, Callable[[], object]] = {  # a file, and what reads it
    "data/rad/metadata.json": split.main,
    "data/split.json": bootstrap_sample.main,
    "data/bootstrap/member-01.json": weigh.main,
    "models/weights.json": report.main,
    "metrics/ensemble.json": report.main,
    "metrics/explain.json": report.main,
    "metrics/export.json": report.main,
    "metrics/members/member-02.json": report.main,
}
IN_ONE_FOLDER = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def places(content: object, above: tuple = ()) -> Iterator[tuple]:
    """The way to each value inside."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield (*above, key)
        yield from places(value, (*above, key))


@pytest.fixture
def project(done, monkeypatch):
    """The current folder. A stage that takes a changed file writes others, to which what later tests read would not fit."""
    monkeypatch.chdir(done.path)
    return done


def is_done(work: Callable[[], object]) -> bool:
    """Do the work; return whether it was done: if not, it was refused in one line."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            work()
    except UserError as error:
        assert str(error)
        assert "\n" not in str(error)
        return False
    return True


@pytest.mark.parametrize("name", WORK)
def test_any_key_missing_from_a_json_file(project, name):
    file = project.path / name
    whole = file.read_text()
    done = {(): is_done(WORK[name])}
    try:
        for place in {tuple(0 if isinstance(key, int) else key for key in place) for place in places(json.loads(whole))}:
            *above, last = place
            content = json.loads(whole)
            del functools.reduce(lambda block, key: block[key], above, content)[last]
            file.write_text(json.dumps(content))
            done[place] = is_done(WORK[name])
    finally:
        file.write_text(whole)
    assert done.pop(())
    assert not all(done.values())


@pytest.mark.parametrize("name", WORK)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=IN_ONE_FOLDER)
def test_any_value_anywhere_in_a_json_file(project, name, data):
    file = project.path / name
    whole = file.read_text()
    try:
        content = copy.deepcopy(json.loads(whole))
        *above, last = data.draw(st.sampled_from([*places(content)]))
        block = functools.reduce(lambda block, key: block[key], above, content)
        if data.draw(st.booleans()):
            del block[last]
        else:
            block[last] = data.draw(anything)
        file.write_text(json.dumps(content))
        is_done(WORK[name])
    finally:
        file.write_text(whole)


@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("data/rad/metadata.json", read_metadata),
        ("data/split.json", lambda: read_split(IMAGES)),
        ("data/bootstrap/member-00.json", lambda: read_sample("member-00", range(IMAGES))),
        ("models/weights.json", lambda: read_vote(MEMBERS, CLASSES)),
        (
            "models/members/member-00/test.csv",
            lambda: read_predictions("models/members/member-00/test.csv", read_split(IMAGES)["test"], CLASSES),
        ),
        ("models/members/member-00/model.keras", lambda: load_model("models/members/member-00/model.keras")),
        ("models/ensemble.keras", lambda: load_ensemble("models/ensemble.keras")),
    ],
)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=3),
    kept=st.just(1) | st.floats(0, 1),
)
@settings(max_examples=40, suppress_health_check=IN_ONE_FOLDER)
def test_any_bytes_anywhere_in_a_file(project, name, work, changes, kept):
    file = project.path / name
    whole = file.read_bytes()
    damaged = bytearray(whole)
    for place, value in changes:
        start = int(place * len(whole))
        damaged[start : start + len(value)] = value
    try:
        file.write_bytes(damaged[: int(kept * len(whole))])
        assert is_done(work) or file.read_bytes() != whole
    finally:
        file.write_bytes(whole)
