"""What the environment that `make` builds changes in DVC: whole files, and folders of which it can't read all."""

import base64
import os
import random
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from dvc.fs import localfs
from dvc.utils.serialize import dumps_yaml, load_yaml, modify_yaml

from benchmarks.local_cluster import wait_for
from tests.faults.faults import small_disk

ROOT = Path(__file__).parents[1]
LOCK_FILE = """
from pathlib import Path
from dvc.fs import localfs
from dvc.utils.serialize import modify_yaml
Path("ready").touch()
while True:
    with modify_yaml("dvc.lock") as lock:
        lock["stages"] = {str(number): {"md5": "0" * 32} for number in range(500)}
"""
RUNNING = """
from pathlib import Path
from dvc.fs import localfs
from dvc.rwlock import rwlock
folder = str(Path.cwd())
paths = [f"{folder}/{number}" for number in range(500)]
Path("ready").touch()
while True:
    with rwlock(folder, localfs, "writer", paths, [], False):
        pass
"""


@pytest.mark.parametrize(
    ("code", "file", "read"),
    [
        (LOCK_FILE, "dvc.lock", lambda file: len(load_yaml(file)["stages"]) == 500),
        (RUNNING, "rwlock", lambda file: isinstance(load_yaml(file), dict)),
    ],
)
def test_dvc_killed_while_it_writes_leaves_a_whole_file(tmp_path, code, file, read):
    for attempt in range(8):
        (tmp_path / "ready").unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
        assert wait_for(lambda: (tmp_path / "ready").exists() and (tmp_path / file).exists())
        time.sleep(random.Random(attempt).uniform(0, 0.3))
        writer.kill()
        writer.wait()
        assert read(tmp_path / file)


def test_a_folder_is_added_without_what_can_not_be_read_and_that_is_told(fresh):
    folder = fresh.path / "data/raw"
    folder.mkdir()
    (folder / "whole.png").write_bytes(b"whole")
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    with open(os.fsencode(folder) + b"/latin-\xe9.png", "wb") as file:
        file.write(b"named in Latin-1")
    output = fresh.run("dvc", "add", "data/raw")
    assert output.stderr.count("is left out: ") == 3
    assert "nfiles: 1" in fresh.read("data/raw.dvc")
    for name, reason in {
        "gone": "No such file or directory",
        "pipe": "not a regular file",
        "latin-": "its name is not UTF",
    }.items():
        assert any(name in line and reason in line for line in output.stderr.splitlines())


def test_the_lock_file_is_the_one_that_dvc_writes_whoever_changes_it(tmp_path):
    text = (ROOT / "dvc.lock").read_text()
    file = tmp_path / "dvc.lock"
    file.write_text(text)
    for number, name in enumerate(["no", "größe: 1", "1e-6", "[x", "weigh"]):
        entry = {
            "cmd": name,
            "params": {"params.yaml": {name: {"none": None, "small": 1e-6, "list": [1, None], "long": "word " * 40}}},
        }
        with modify_yaml(str(file)) as lock:
            lock["stages"].update({name: entry})
        content = load_yaml(file)
        assert content["stages"][name] == entry
        assert file.read_text() == dumps_yaml(content)
        assert len(content["stages"]) == len(load_yaml(ROOT / "dvc.lock")["stages"]) + min(number, 3) + 1
        del content["stages"]["no"]  # by another process
        file.write_text(dumps_yaml(content | {"stages": {"no": {"cmd": "by hand"}} | content["stages"]}))
        with modify_yaml(str(file)) as lock:
            assert lock["stages"]["no"] == {"cmd": "by hand"}
    assert (ROOT / "dvc.lock").read_text() == dumps_yaml(load_yaml(ROOT / "dvc.lock"))


def test_a_copy_onto_a_full_disk_leaves_nothing(tmp_path):
    (tmp_path / "large").write_bytes(bytes(100_000))
    with small_disk(tmp_path / "disk", "16k"):
        with pytest.raises(OSError, match="No space left"):
            localfs.put_file(str(tmp_path / "large"), str(tmp_path / "disk/large"))
        assert not [*(tmp_path / "disk").iterdir()]
    with pytest.raises(FileNotFoundError):
        localfs.get_file(str(tmp_path / "missing"), str(tmp_path / "large"))
    assert (tmp_path / "large").stat().st_size == 100_000


def test_a_full_disk_is_told_when_a_stage_is_restored(done, tmp_path):
    with small_disk(tmp_path / "disk", "40m"):
        project = done.copy(tmp_path / "disk")
        (project.path / "models/ensemble.keras").unlink()
        with open(tmp_path / "disk/filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(tmp_path / "disk").free - 96 * 1024)
        told = project.run("dvc", "repro", "--single-item", "export", ok=False)
        assert "No space left on device" in told.stderr
        assert not [*(project.path / "models").glob(".*.tmp")]


def test_plots_page_links_nothing(fresh, tmp_path):
    fresh.run("dvc", "plots", "show", "-o", str(tmp_path / "elsewhere"))
    page = (tmp_path / "elsewhere/index.html").read_text()
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    images = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(images) == 7
    for image in images:
        assert base64.b64decode(image.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert not [tag for tag, attributes in tags if tag != "img" and {"src", "href"} & {*attributes}]
    assert "window.vegaEmbed=" in page  # the library
    assert page.count("vegaEmbed('#") >= 6
