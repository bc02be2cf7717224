"""Shard boundaries depend on the paths near them alone; shards are neither many nor small."""

import hashlib
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainmri.store.boundaries import MAX_SHARDS, shard_boundaries

PATHS = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1),
    min_size=50,
    unique=True,
)


@given(paths=PATHS, new=st.text("abc", min_size=1))
def test_new_path_changes_only_shards_near_it(paths, new):
    before, after = sorted({*paths} - {new}), sorted({*paths, new})
    position = after.index(new)
    near = after[max(0, position - 4) : position + 5]
    first_before, first_after = (
        {paths[start] for start in shard_boundaries(paths)} for paths in (before, after)
    )
    assert first_before ^ first_after <= {*near}


@pytest.mark.parametrize("count", [1, 3, 400, 20_000])
def test_number_and_size_of_shards(count):
    starts = shard_boundaries([f"no/{number:05}.png" for number in range(count)])
    assert starts[0] == 0
    assert len(starts) <= 1.1 * MAX_SHARDS
    assert len(starts) >= min(MAX_SHARDS // 2, count / 10)
    assert all(np.diff(starts[1:]) > 3)


@pytest.mark.parametrize(("count", "window"), [(60, 3), (4900, 3), (4901, 7), (10_501, 15)])
def test_shards_begin_at_the_smallest_hash(count, window):
    paths = [f"no/é{number:05}.png" for number in range(count)]
    digests = [hashlib.blake2b(path.encode(), digest_size=8).digest() for path in paths]
    hashes = [int.from_bytes(digest, sys.byteorder) for digest in digests]
    starts = {0}
    for index in range(count):
        neighbors = hashes[max(0, index - window) : index + window + 1]
        if hashes[index] == min(neighbors):
            starts.add(index)
    assert shard_boundaries(paths) == sorted(starts)
