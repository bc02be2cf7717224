"""JSON files have one layout, are written whole or not at all, and are read strictly."""

import json
import os
import re

import pytest

from brainmri.common.errors import UserError
from brainmri.common.files import read_json, write_bytes, write_json
from brainmri.sampling.files import Split

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
    assert path.stat().st_mode & 0o777 == 0o644


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
    content = {"test": [0], "training": [1], "left_out": [], "groups": [0, 1]}
    path.write_text(json.dumps(content | {"more": 1}))
    assert read_json(path, Split) == content
    for test in ([0.0], ["0"], [True], [-1], None):
        path.write_text(json.dumps(content | {"test": test}))
        with pytest.raises(UserError, match="has unexpected content"):
            read_json(path, Split)
