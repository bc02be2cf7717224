"""The files of the split and of the samples must fit the images."""

import pytest

from brainmri.common.errors import UserError
from brainmri.common.files import write_json
from brainmri.sampling.files import read_sample, read_split


@pytest.mark.parametrize(
    ("test", "training", "excluded", "groups", "is_valid"),
    [
        ([2, 0], [1, 3], [], [0, 1, 2, 3], True),
        ([2], [1, 3], [0], [0, 1, 2, 3], True),
        ([2, 0], [1], [], [0, 1, 2, 3], False),
        ([2, 0], [1, 3, 2], [], [0, 1, 2, 3], False),
        ([2, 0], [1, 3], [2], [0, 1, 2, 3], False),
        ([2, 0], [1], [4], [0, 1, 2, 3], False),
        ([2, 4], [1, 3], [], [0, 1, 2, 3], False),
        ([2, 0], [1, 3], [], [0, 1, 2], False),
        ([2, 0], [1, 3], [], [0, 1, 2, 3, 4], False),
    ],
)
def test_split_has_every_image_once(
    tmp_path, monkeypatch, test, training, excluded, groups, is_valid
):
    monkeypatch.chdir(tmp_path)
    content = {"test": test, "training": training, "excluded": excluded, "groups": groups}
    write_json("data/split.json", content)
    if is_valid:
        assert read_split(4) == content
    else:
        with pytest.raises(UserError, match="not a split of the 4 images"):
            read_split(4)


@pytest.mark.parametrize(
    ("in_bag", "out_of_bag", "is_valid"),
    [([5, 5, 7], [9], True), ([5], [6], False), ([4, 5], [9], False), ([5, 9], [7, 9], False)],
)
def test_sample_is_of_training_images(tmp_path, monkeypatch, in_bag, out_of_bag, is_valid):
    monkeypatch.chdir(tmp_path)
    write_json("data/bootstrap/member-03.json", {"in_bag": in_bag, "out_of_bag": out_of_bag})
    if is_valid:
        assert read_sample("member-03", {5, 7, 9}) == (in_bag, out_of_bag)
    else:
        with pytest.raises(UserError, match="was not drawn from these images"):
            read_sample("member-03", {5, 7, 9})
