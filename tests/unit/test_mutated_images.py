"""Mutated image files: whatever a decoder raises for one file is that file's line.

`make faults` tries more: MUTATIONS=20000 python -m pytest tests/unit/test_mutated_images.py
"""

import os

import pytest

from brainmri.images.decoding import decode
from brainmri.images.limits import ImageError
from brainmri.images.workers import decode_all
from tests.support.mutations import files_to_damage, mutate

MUTATIONS = int(os.environ.get("MUTATIONS", "300"))  # of all files together
FILES = files_to_damage()


def test_mutated_files_are_read_or_refused(tmp_path):
    path = tmp_path / "image"
    outcomes = {"read": 0, "refused": 0}
    for seed in range(MUTATIONS):
        path.write_bytes(mutate(FILES[seed % len(FILES)], seed))
        try:
            assert decode(path, 32, crop=True).pixels.shape == (32, 32), seed
            outcomes["read"] += 1
        except ImageError as error:
            assert str(error).strip(), seed
            assert "\n" not in str(error), seed
            outcomes["refused"] += 1
    assert min(outcomes.values()) > MUTATIONS / 10


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError(), ValueError("a\nb"), KeyError(1)]
)
def test_any_exception_is_the_line_of_its_file(tmp_path, monkeypatch, error):
    def raise_error(*_, **__):
        raise error

    for number, content in enumerate(FILES[1:4]):
        (tmp_path / str(number)).write_bytes(content)
    paths = sorted(tmp_path.iterdir())
    monkeypatch.setattr("brainmri.images.decoding._decode", raise_error)
    outcomes = [image for _, image in decode_all(iter([*paths, "nu\0ll"]), 32, False, 2)]
    assert len(outcomes) == 4
    assert all(isinstance(outcome, ImageError) for outcome in outcomes)
    assert not any("\n" in str(outcome) for outcome in outcomes)
