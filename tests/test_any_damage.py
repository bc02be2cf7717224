"""Whatever stands in a file between stages, a stage does its work or says in one line which file is wrong."""

import contextlib
import copy
import functools
import io
import json
import os
from collections.abc import Callable, Iterator

import pytest
from conftest import SMALL
from hypothesis import given, settings
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


@pytest.fixture(scope="module")
def project(small, tmp_path_factory):
    """A copy of the small project, which is the current folder."""
    copied = small.copy(tmp_path_factory.mktemp("damaged"))
    before = os.getcwd()  # noqa: PTH109
    os.chdir(copied.path)
    yield copied
    os.chdir(before)


def is_done_or_told(work: Callable[[], object]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(UserError):
        work()


@pytest.mark.parametrize("name", WORK)
def test_any_key_missing_from_a_json_file(project, name):
    file = project.path / name
    whole = file.read_text()
    try:
        for *above, last in {tuple(0 if isinstance(key, int) else key for key in place) for place in places(json.loads(whole))}:
            content = json.loads(whole)
            del functools.reduce(lambda block, key: block[key], above, content)[last]
            file.write_text(json.dumps(content))
            is_done_or_told(WORK[name])
    finally:
        file.write_text(whole)


@pytest.mark.parametrize("name", WORK)
@given(data=st.data())
@settings(deadline=None, max_examples=60)
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
        is_done_or_told(WORK[name])
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
            lambda: read_predictions("models/members/member-00/test.csv", [*range(10)], CLASSES),
        ),
        ("models/members/member-00/model.keras", lambda: load_model("models/members/member-00/model.keras")),
        ("models/ensemble.keras", lambda: load_ensemble("models/ensemble.keras")),
    ],
)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=3),
    kept=st.just(1) | st.floats(0, 1),
)
@settings(deadline=None, max_examples=40)
def test_any_bytes_anywhere_in_a_file(project, name, work, changes, kept):
    file = project.path / name
    whole = file.read_bytes()
    damaged = bytearray(whole)
    for place, value in changes:
        start = int(place * len(whole))
        damaged[start : start + len(value)] = value
    try:
        file.write_bytes(damaged[: int(kept * len(whole))])
        is_done_or_told(work)
    finally:
        file.write_bytes(whole)
