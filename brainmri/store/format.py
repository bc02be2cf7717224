"""The file format of the store: names of the shards, checksum of the index file."""

import hashlib
import re

SHARD_NAME = re.compile(rb"[0-9a-f]{32}")
USER_BLOCK = 512  # bytes before the HDF5 content of the index file, the fewest that HDF5 allows
REBUILD = "run `dvc repro --force ingest` to make it again"


def shard_name(content: bytes) -> str:
    """Return the name of a shard: the first half of its SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()[:32]


def with_checksum(content: bytes) -> bytes:
    """Write the checksum of an index file into its user block.

    Parameters
    ----------
    content : bytes
        An HDF5 file with a user block of `USER_BLOCK` bytes.

    Returns
    -------
    bytes
        The same file; its user block is the SHA-256 of what follows, in hexadecimal.
    """
    body = content[USER_BLOCK:]
    checksum = hashlib.sha256(body).hexdigest().encode()
    return checksum.ljust(USER_BLOCK, b"\0") + body
