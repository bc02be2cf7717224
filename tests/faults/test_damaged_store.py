"""A damaged or hostile store is refused in one line, and has no other file read."""

import hashlib
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainmri.common.errors import UserError
from brainmri.store.format import USER_BLOCK, shard_name, with_checksum
from brainmri.store.reader import RadReader
from brainmri.store.writer import encode_shard
from tests.support.store import IMAGES, LABELS, make_store, shard_paths


def write_index(path, names=(b"0" * 32,), sizes=(70,), images=IMAGES):
    """Write an index file of any content by hand."""
    with h5py.File(path, "w", userblock_size=USER_BLOCK) as file:
        file["images"] = images
        file["labels"] = LABELS.astype(np.uint8)
        file["shards"] = np.array(names, "S32")
        file["shard_sizes"] = np.array(sizes, np.uint32)
    path.write_bytes(with_checksum(path.read_bytes()))


def change_index(path, change):
    """Change an index file by hand, and its checksum accordingly."""
    with h5py.File(path, "a") as file:
        change(file)
    path.write_bytes(with_checksum(path.read_bytes()))


def test_checksums_are_sha256():
    content = bytes(range(256)) * 4
    body = content[512:]
    assert shard_name(content) == hashlib.sha256(content).hexdigest()[:32]
    assert with_checksum(content) == hashlib.sha256(body).hexdigest().encode() + bytes(448) + body


def test_damaged_index_files_are_refused(tmp_path):
    make_store(tmp_path / "rad.h5")
    (tmp_path / "half.h5").write_bytes((tmp_path / "rad.h5").read_bytes()[:2000])
    (tmp_path / "text.h5").write_text("no HDF5")
    write_index(tmp_path / "other.h5", images=np.zeros((3, 4)))
    write_index(tmp_path / "objects.h5")
    change_index(tmp_path / "objects.h5", lambda file: file.pop("labels"))
    change_index(
        tmp_path / "objects.h5",
        lambda file: file.create_dataset("labels", (70,), h5py.string_dtype()),
    )
    write_index(tmp_path / "fewer.h5", sizes=(69,))
    write_index(tmp_path / "none.h5", names=[b"0" * 32, b"1" * 32], sizes=(70, 0))
    write_index(tmp_path / "outside.h5", names=[b"../../secret"])
    for name in ("half", "text", "other", "objects", "fewer", "none", "outside", "missing"):
        with pytest.raises(UserError, match=f"{name}.h5.*dvc repro"):
            RadReader(tmp_path / f"{name}.h5")


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_damaged_and_missing_shards_are_refused(tmp_path, compression):
    path = tmp_path / "rad.h5"
    make_store(path, compression=compression)
    shard = shard_paths(path)[0]
    content = shard.read_bytes()
    other = encode_shard(IMAGES[1:33], compression)
    for damaged in (b"", b"no HDF5", content[:3000], content[:-9], other):
        shard.unlink()
        shard.write_bytes(damaged)
        message = f"{shard.name} is damaged.*--force ingest"
        with RadReader(path) as rad, pytest.raises(UserError, match=message):
            rad.images(range(70))
    shard.unlink()
    message = f"{shard.name} is missing.*--force ingest"
    with RadReader(path) as rad, pytest.raises(UserError, match=message):
        rad.images(range(70))


@pytest.mark.parametrize(
    "content",
    [
        b"no HDF5",
        encode_shard(IMAGES[:3], "none"),
        encode_shard(IMAGES[:, 1:], "none"),
        encode_shard(IMAGES[:, 1:], "gzip"),
    ],
    ids=["text", "few images", "small images", "small compressed images"],
)
def test_shards_of_other_images_are_refused(tmp_path, content):
    name = shard_name(content)
    (tmp_path / "shards").mkdir()
    (tmp_path / f"shards/{name}.h5").write_bytes(content)
    write_index(tmp_path / "rad.h5", names=[name])
    message = f"{name}.h5 is damaged"
    with RadReader(tmp_path / "rad.h5") as rad, pytest.raises(UserError, match=message):
        rad.images([0])


def test_short_compressed_image_is_refused(tmp_path):
    shard = tmp_path / "shard.h5"
    shard.write_bytes(encode_shard(IMAGES, "gzip"))
    with h5py.File(shard, "a") as file:
        file["images"].id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(399)))
    name = shard_name(shard.read_bytes())
    (tmp_path / "shards").mkdir()
    shard.rename(tmp_path / f"shards/{name}.h5")
    write_index(tmp_path / "rad.h5", names=[name])
    with RadReader(tmp_path / "rad.h5") as rad:
        np.testing.assert_array_equal(rad.images([1]), IMAGES[[1]])
        with pytest.raises(UserError, match="399 bytes in an image of 400"):
            rad.images([0])


@given(
    position=st.integers(0, 10**6),
    value=st.binary(min_size=1, max_size=40),
    compression=st.sampled_from(["none", "gzip"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damage_anywhere_is_noticed(tmp_path, position, value, compression):
    path = tmp_path / "rad.h5"
    make_store(path, compression=compression)
    for file in (path, shard_paths(path)[0]):
        content = file.read_bytes()
        start = position % len(content)
        damaged = content[:start] + value + content[start + len(value) :]
        damaged = damaged[: len(content)]
        file.unlink()
        file.write_bytes(damaged)
        if damaged != content:
            with pytest.raises(UserError, match="is damaged"), RadReader(path) as rad:
                rad.images([*range(len(rad))])
        file.write_bytes(content)


@pytest.mark.parametrize("kind", ["external", "virtual", "link", "soft"])
def test_values_in_other_files_are_refused(tmp_path, kind):
    make_store(tmp_path / "rad.h5")
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(IMAGES.size))
    layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
    layout[:] = h5py.VirtualSource(tmp_path / "rad.h5", "images", IMAGES.shape)

    def add_images(file):
        if kind == "external":
            external = [(str(secret), 0, IMAGES.size)]
            file.create_dataset("images", IMAGES.shape, np.uint8, external=external)
        elif kind == "virtual":
            file.create_virtual_dataset("images", layout)
        elif kind == "link":
            file["images"] = h5py.ExternalLink(str(tmp_path / "rad.h5"), "images")
        else:
            file["images"] = h5py.SoftLink("/nowhere")

    shard = tmp_path / "shard.h5"
    with h5py.File(shard, "w") as file:
        add_images(file)
    name = shard_name(shard.read_bytes())
    shard.rename(tmp_path / f"shards/{name}.h5")
    index = tmp_path / "index.h5"
    write_index(index, names=[name])
    with RadReader(index) as rad, pytest.raises(UserError, match="is damaged"):
        rad.images([0])

    if kind != "virtual":  # no value of which is read
        write_index(index)
        change_index(index, lambda file: file.pop("images"))
        change_index(index, add_images)
        with pytest.raises(UserError, match="lacks `images`"):
            RadReader(index)
