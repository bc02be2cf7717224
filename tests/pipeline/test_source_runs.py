"""Sources in the whole pipeline: system files, DVC's links, Unicode, another spelling."""

import json
import shutil
import unicodedata

import pytest

from tests.support.images import encode_noise, write_raw_files
from tests.support.ingest import DVC_INGEST, run_ingest
from tests.support.project import ran
from tests.support.trees import SYSTEM_FILES

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "après") for form in ("NFC", "NFD"))
IMAGES = {f"{name}/{index}.png" for name in ("no", "yes") for index in range(4)}


def test_system_files_are_skipped_in_strict_mode(project):
    for folder in ("", "no/", "no/patient/"):
        files = {f"{folder}{name}": encode_noise(len(name)) for name in SYSTEM_FILES}
        write_raw_files(project, files)
    project.edit(ingest__strict=True)
    output, stored, reasons = run_ingest(project)
    assert stored == IMAGES
    assert not reasons
    assert output.stdout.splitlines()[-1] == "8 images of 2 classes, 0 files skipped"


@pytest.mark.parametrize(
    ("kind", "cache"),
    [
        ("reflink", ".dvc/cache"),
        ("hardlink", ".dvc/cache"),
        ("symlink", ".dvc/cache"),
        ("copy", ".dvc/cache"),
        ("symlink", "../shared cache"),
    ],
)
def test_link_types_of_dvc_give_the_same_store(project, kind, cache):
    project.run("dvc", "config", "--local", "cache.dir", cache)
    project.run("dvc", "config", "--local", "cache.type", f"{kind},copy")
    project.run("dvc", "add", "data/raw")
    shutil.rmtree(project.path / "data/raw")
    project.run("dvc", "checkout", "data/raw.dvc")
    assert (project.path / "data/raw/no/0.png").is_symlink() == (kind == "symlink")
    _, stored, reasons = run_ingest(project, command=DVC_INGEST)
    assert (stored, reasons) == (IMAGES, {})
    in_cache = project.path / cache / "outside.png"  # not one of its objects
    in_cache.write_bytes(encode_noise(9))
    (project.path / "data/raw/yes/cache.png").symlink_to(in_cache)
    output, _, _ = run_ingest(project, ok=False)
    assert "error: 'data/raw/yes/cache.png' is a symbolic link out of data.source" in output.stderr


def test_forms_of_unicode_are_one_name(project):
    files = {
        f"{COMPOSED}/a.png": encode_noise(1),
        f"{COMPOSED}/b.png": encode_noise(2),
        f"avant/{COMPOSED}.png": encode_noise(3),
    }
    write_raw_files(project, files)
    _, stored, _ = run_ingest(project)
    outputs = ("data/rad/metadata.json", "metrics/ingest.json")
    expected = [project.read(path) for path in outputs]
    assert {f"{COMPOSED}/a.png", f"avant/{COMPOSED}.png"} <= stored

    # The same files from a Mac
    raw = project.path / "data/raw"
    (raw / COMPOSED).rename(raw / DECOMPOSED)
    (raw / f"avant/{COMPOSED}.png").rename(raw / f"avant/{DECOMPOSED}.png")
    run_ingest(project)
    assert [project.read(path) for path in outputs] == expected

    # Both forms, as one class
    files = {f"{COMPOSED}/a.png": encode_noise(4), f"{COMPOSED}/c.png": encode_noise(5)}
    write_raw_files(project, files)
    _, stored, _ = run_ingest(project)
    metadata = json.loads(project.read("data/rad/metadata.json"))
    assert metadata["classes"] == ["après", "avant", "no", "yes"]
    assert sum(image["class"] == COMPOSED for image in metadata["images"]) == 4
    paths = (f"{COMPOSED}/a.png", f"{DECOMPOSED}/a.png", f"{COMPOSED}/b.png", f"{COMPOSED}/c.png")
    assert {*paths} <= stored

    for name in ("no", "yes", "avant"):
        shutil.rmtree(raw / name)
    output, _, _ = run_ingest(project, ok=False)
    assert "has 1 class folder(s); expected two or more" in output.stderr


def test_other_spelling_of_the_source_runs_nothing(done):
    lock, params = done.read("dvc.lock"), done.read("params.yaml")
    assert not ran(done.reproduce(**{"data.source": "./data//phantom/"}))
    assert (done.read("dvc.lock"), done.read("params.yaml")) == (lock, params)
    reports = ("docs/model-card.md", "plots/report.html")
    before = [done.read(path) for path in reports]
    assert "synthetic slices drawn by the pipeline" in before[0]
    done.edit(data__source="./data/phantom/")
    assert ran(done.run("dvc", "repro")) == ["ingest", "report"]
    assert [done.read(path) for path in reports] == before
