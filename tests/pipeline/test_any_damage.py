"""Whatever is in a file between stages, a stage succeeds, or names the file in one line."""

import contextlib
import copy
import functools
import io
import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainmri.common.errors import UserError
from brainmri.evaluation.predictions import read_predictions
from brainmri.evaluation.results import read_voting_weights
from brainmri.models.ensemble import load_ensemble
from brainmri.networks.saving import load_model
from brainmri.sampling.files import read_sample, read_split
from brainmri.store.metadata import read_metadata
from stages import bootstrap_sample, report, split, weigh
from tests.support.project import SMALL

IMAGES = SMALL["phantom.classes.no"] + SMALL["phantom.classes.yes"]
CLASSES, MEMBERS = ["no", "yes"], ["member-00", "member-01", "member-02"]
STAGES: dict[str, Callable[[], object]] = {  # by a file that the stage reads
    "data/rad/metadata.json": split.main,
    "data/split.json": bootstrap_sample.main,
    "data/bootstrap/member-01.json": weigh.main,
    "models/weights.json": report.main,
    "metrics/ensemble.json": report.main,
    "metrics/explain.json": report.main,
    "metrics/export.json": report.main,
    "metrics/members/member-02.json": report.main,
}
PREDICTIONS = "models/members/member-00/test.csv"
MODEL = "models/members/member-00/model.keras"
SUPPRESSED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)
Location = tuple[str | int, ...]


def locations(content: object, parent: Location = ()) -> Iterator[Location]:
    """Yield the keys and indices that lead to each value in the content of a JSON file."""
    items = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for key, value in items:
        yield (*parent, key)
        yield from locations(value, (*parent, key))


def container_of(content: object, location: Location) -> object:
    """Return the dict or list that holds a value."""
    return functools.reduce(lambda container, key: container[key], location[:-1], content)


def succeeds(function: Callable[[], object]) -> bool:
    """Call a function; return whether it succeeded: if not, it failed with one line."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            function()
    except UserError as error:
        assert str(error)
        assert "\n" not in str(error)
        return False
    return True


@pytest.fixture
def project(done, monkeypatch):
    """The current folder, new in each test: a stage that accepts a change writes other outputs."""
    monkeypatch.chdir(done.path)
    return done


@pytest.mark.parametrize("name", STAGES)
def test_any_missing_key(project, name):
    file = project.path / name
    text = file.read_text()
    of_first_items = {
        tuple(0 if isinstance(key, int) else key for key in location)
        for location in locations(json.loads(text))
    }
    assert succeeds(STAGES[name])
    results = []
    try:
        for location in of_first_items:
            content = json.loads(text)
            del container_of(content, location)[location[-1]]
            file.write_text(json.dumps(content))
            results.append(succeeds(STAGES[name]))
    finally:
        file.write_text(text)
    assert not all(results)


@pytest.mark.parametrize("name", STAGES)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=SUPPRESSED)
def test_any_value(project, name, data):
    file = project.path / name
    text = file.read_text()
    try:
        content = copy.deepcopy(json.loads(text))
        location = data.draw(st.sampled_from([*locations(content)]))
        container = container_of(content, location)
        if data.draw(st.booleans()):
            del container[location[-1]]
        else:
            container[location[-1]] = data.draw(ANY_VALUE)
        file.write_text(json.dumps(content))
        succeeds(STAGES[name])
    finally:
        file.write_text(text)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("data/rad/metadata.json", read_metadata),
        ("data/split.json", lambda: read_split(IMAGES)),
        ("data/bootstrap/member-00.json", lambda: read_sample("member-00", range(IMAGES))),
        ("models/weights.json", lambda: read_voting_weights(MEMBERS, CLASSES)),
        (
            PREDICTIONS,
            lambda: read_predictions(PREDICTIONS, read_split(IMAGES)["test"], CLASSES),
        ),
        (MODEL, lambda: load_model(MODEL)),
        ("models/ensemble.keras", lambda: load_ensemble("models/ensemble.keras")),
    ],
)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=3),
    fraction=st.just(1) | st.floats(0, 1),
)
@settings(max_examples=40, suppress_health_check=SUPPRESSED)
def test_any_bytes(project, name, read, changes, fraction):
    file = project.path / name
    content = file.read_bytes()
    damaged = bytearray(content)
    for position, value in changes:
        start = int(position * len(content))
        damaged[start : start + len(value)] = value
    try:
        file.write_bytes(damaged[: int(fraction * len(content))])
        assert succeeds(read) or file.read_bytes() != content
    finally:
        file.write_bytes(content)
