"""Large images are decoded in processes with limits; what is beyond them is that file's line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from brainmri.images import workers
from brainmri.images.decoding import DecodedImage, decode
from brainmri.images.limits import SMALL_PIXELS, ImageError
from brainmri.images.workers import decode_all, run_on_files
from tests.support import decoders
from tests.support.checkout import ROOT
from tests.support.image_files import SLICES
from tests.support.project import heed_signals
from tests.support.waiting import LIMIT_S, wait_for

LOOP = """
import sys
from brainmri.images.workers import run_on_files
from tests.support import decoders
from brainmri.common.command import run_command

def main():
    print("started", flush=True)
    print(list(run_on_files(decoders.loop_forever, [()] * 100, 2)))

run_command(main)
"""


def outcomes(function, *calls: tuple, threads: int = 2) -> list:
    return [outcome for _, outcome in run_on_files(function, calls, threads)]


def children() -> list[psutil.Process]:
    """The processes that decode: others are those of other tests."""
    processes = psutil.Process().children(recursive=True)
    return [process for process in processes if workers.SERVE in process.cmdline()]


@pytest.fixture
def large_file(tmp_path) -> Path:
    image = Image.fromarray(SLICES[0]).resize((2100, 2100))
    assert image.width * image.height > SMALL_PIXELS
    image.save(tmp_path / "large.png")
    return tmp_path / "large.png"


def test_large_images_are_decoded_as_all_others_are(large_file, tmp_path):
    Image.fromarray(SLICES[1]).save(tmp_path / "small.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(large_file.read_bytes()[:2000])
    paths = [large_file, tmp_path / "small.png", broken, large_file]
    decoded = list(decode_all(paths, 64, True, 2))
    assert [path for path, _ in decoded] == paths
    for path, image in decoded:
        if path == broken:
            assert isinstance(image, ImageError)
            with pytest.raises(ImageError) as caught:
                decode(path, 64, True)
            assert str(image) == str(caught.value)
        else:
            expected = decode(path, 64, True)
            assert isinstance(image, DecodedImage)
            np.testing.assert_array_equal(image.pixels, expected.pixels)
            assert image.sha256 == expected.sha256
    assert children() == []


def test_small_images_start_no_process(tmp_path, monkeypatch):
    Image.fromarray(SLICES[0]).save(tmp_path / "small.png")
    monkeypatch.setattr(workers.subprocess, "Popen", None)
    ((_, image),) = decode_all([tmp_path / "small.png"], 64, False, 2)
    assert isinstance(image, DecodedImage)


def test_time_is_limited_for_each_file(monkeypatch):
    monkeypatch.setattr(workers, "MAX_CPU_S", 1)
    slow, crashed, read = [
        outcomes(function, *calls)
        for function, calls in (
            (decoders.loop_forever, [(), ()]),
            (decoders.crash, [()]),
            (decoders.allocate, [(1,), (2,)]),
        )
    ]
    assert {str(error) for error in slow} == {
        "decoding takes more than 1 s; save it smaller, or as plain PNG"
    }
    assert [str(error) for error in crashed] == ["its decoder crashed (SIGABRT)"]
    assert read == [1, 2]
    assert children() == []


def test_memory_is_limited_for_each_process(large_file, monkeypatch):
    monkeypatch.setattr(workers, "MAX_MEMORY", 2**28)
    too_much, enough = outcomes(decoders.allocate, (2**29,), (2**20,), threads=1)
    assert str(too_much) == "there is not enough memory to decode it"
    assert enough == 2**20
    monkeypatch.setattr(workers, "MAX_MEMORY", 2**21)
    ((_, image),) = decode_all([large_file], 64, False, 2)
    assert str(image) == "there is not enough memory to decode it"


@pytest.mark.parametrize(("free", "at_once"), [(0, 1), (1, 1), (2, 2), (100, 2)])
def test_processes_are_as_many_as_memory_is_free_for(tmp_path, monkeypatch, free, at_once):
    monkeypatch.setattr(workers, "free_memory", lambda: free * workers.MAX_MEMORY)
    monkeypatch.setattr(workers, "CHUNK_SIZE", 1)
    seconds = LIMIT_S if at_once > 1 else 1
    calls = [(str(tmp_path), seconds)] * 2
    assert outcomes(decoders.meet_another, *calls) == [at_once > 1] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_takes_effect_while_a_file_is_decoded(number):
    command = [sys.executable, "-c", LOOP]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=heed_signals,  # noqa: PLW1509
    )
    assert process.stdout.readline() == b"started\n"
    tree = psutil.Process(process.pid)
    assert wait_for(lambda: any(sum(child.cpu_times()[:2]) > 1 for child in tree.children()))
    decoding = tree.children()
    start = time.monotonic()
    os.killpg(process.pid, number)
    _, errors = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert errors == b""
    assert time.monotonic() - start < 20  # of 100 files with 60 s each
    _, alive = psutil.wait_procs(decoding, timeout=10)
    assert not alive
