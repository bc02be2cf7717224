"""JSON files have one layout, are written whole or not at all, and are read strictly; archives of
equal content are equal files.
"""

import ast
import hashlib
import json
import os
import re

import keras
import numpy as np
import pytest

from brainmri.audit.measuring import save_cache
from brainmri.audit.tables import write_table as write_audit_table
from brainmri.common.errors import UserError
from brainmri.common.files import read_json, to_json, write_arrays, write_bytes, write_json
from brainmri.common.progress import parse_record, print_record
from brainmri.evaluation.predictions import write_predictions
from brainmri.networks.saving import save_model
from brainmri.parallel.dask_worker import FileCache
from brainmri.sampling.files import Split
from brainmri.store.writer import _link_or_copy
from tests.support.checkout import ROOT

CONTENT = {
    "b": [1, 2.5],
    "a": {"c": None, "d": {}},
    "e": [{"f": 1, "g": [2]}, [3]],
    "h": "é",
    "i": [[1], [2]],
}
TEXT = """{
  "b": [1, 2.5],
  "a": {
    "c": null,
    "d": {}
  },
  "e": [
    {"f": 1, "g": [2]},
    [3]
  ],
  "h": "\\u00e9",
  "i": [
    [1],
    [2]
  ]
}
"""


def test_json_is_written_in_one_layout(tmp_path):
    path = tmp_path / "deeper/a.json"
    write_json(path, CONTENT)
    assert path.read_text() == TEXT


def test_arrays_have_the_same_bytes_with_every_python(tmp_path):
    """So `dvc.lock` is that of the commit, whichever Python a clone runs with."""
    path = tmp_path / "a.npz"
    arrays = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.array(["no", "yes"], "<U3")}
    write_arrays(path, **arrays)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == "48a12144ab764f583c996c297d12a81a0ecb2cb882e4469e860a3b54452e9cf6"
    with np.load(path, allow_pickle=False) as file:
        assert set(file) == set(arrays)
        assert all(np.array_equal(file[name], array) for name, array in arrays.items())


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_that_the_umask_leaves(tmp_path, umask, mode):
    """Of every writer, also where a link is impossible and the store copies a shard."""
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a", b"")
        write_json(tmp_path / "a.json", CONTENT)
        write_arrays(tmp_path / "a.npz", a=np.zeros(1))
        write_audit_table(tmp_path / "a.csv", [["path"]])
        write_predictions(tmp_path / "b.csv", [0], np.ones((1, 1)), ["no"])
        save_cache([], 16, {}, tmp_path / "cache.json")
        save_model(keras.Sequential([keras.Input((1,)), keras.layers.ReLU()]), tmp_path / "a.keras")
        os.chmod(tmp_path / "a", 0o777)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "link", lambda *_: os.stat("/nowhere"))
            _link_or_copy(tmp_path / "a", tmp_path / "shard.h5")
        FileCache(tmp_path / "objects").add({hashlib.sha256(b"b").hexdigest(): b"b"})
    finally:
        os.umask(before)
    files = [file for file in tmp_path.iterdir() if file.is_file() and file.name != "a"]
    assert len(files) == 7
    assert {file.stat().st_mode & 0o777 for file in files} == {mode}
    (kept,) = tmp_path.glob("objects/*/*")
    assert kept.stat().st_mode & 0o777 == mode & 0o444


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, CONTENT)
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            write_json(path, {"b": [value]})
    with pytest.raises(TypeError):
        write_bytes(path, "text")
    monkeypatch.setattr(os, "replace", lambda *_: os.stat("/nowhere"))
    with pytest.raises(OSError, match=re.escape(str(path))):
        write_bytes(path, b"new")
    assert path.read_text() == TEXT
    assert [*tmp_path.iterdir()] == [path]


def test_json_is_read_strictly(tmp_path):
    path = tmp_path / "a.json"
    content = {"test": [0], "training": [1], "excluded": [], "groups": [0, 1]}
    path.write_text(json.dumps(content | {"more": 1}))
    assert read_json(path, Split) == content
    for test in ([0.0], ["0"], [True], [-1], None):
        path.write_text(json.dumps(content | {"test": test}))
        with pytest.raises(UserError, match="has unexpected content"):
            read_json(path, Split)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_json_holds_finite_numbers(tmp_path, number):
    with pytest.raises(ValueError, match="JSON"):
        to_json([float(number)])
    path = tmp_path / "a.json"
    path.write_text(f'{{"test": [{number}]}}')
    with pytest.raises(UserError, match=f"not valid JSON .{number} is no number"):
        read_json(path, Split)


def test_records_of_a_training_that_diverges_are_json(capsys):
    metrics = {"out_of_bag_log_loss": float("nan"), "out_of_bag_accuracy": 0.5}
    print_record({"epoch": 1, "epochs": 2, "metrics": metrics})
    line = capsys.readouterr().out
    assert json.loads(line)["metrics"] == {"out_of_bag_log_loss": None, "out_of_bag_accuracy": 0.5}
    assert parse_record(line)["metrics"] == pytest.approx(metrics, nan_ok=True)


def test_no_code_writes_json_that_may_hold_nan():
    """All pass `allow_nan=False`, but for a hash's input, keys, and a message of text alone."""
    lenient = []
    for path in sorted([*ROOT.glob("brainmri/**/*.py"), *ROOT.glob("stages/*.py")]):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "import json" in text else ():
            is_dump = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("dump", "dumps", "JSONEncoder")
            )
            if is_dump and "allow_nan" not in {keyword.arg for keyword in node.keywords}:
                lenient.append(ast.unparse(node))
    assert lenient == [
        "json.dumps(str(key))",
        "json.dumps({'name': name, 'folder': str(folder), 'log': str(log)})",
        "json.dumps(inputs, sort_keys=True)",
    ]
