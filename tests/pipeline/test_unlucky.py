"""Commands on an unlucky machine: one line on standard error, a status, no half file."""

import subprocess

import pytest

from tests.support.disk import fill, small_disk
from tests.support.project import Project
from tests.support.waiting import LIMIT_S

PREDICT = "python -m brainmri.predict"
IMAGES = "data/phantom/no"
CLOSED_PIPE = 141  # 128 and the number of SIGPIPE


def shell(project: Project, command: str) -> subprocess.CompletedProcess:
    """Run a line of Bash there, whose status is that of the command that failed in a pipe."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=project.path,
        env=project.environment,
        text=True,
        capture_output=True,
        timeout=LIMIT_S,
    )


@pytest.mark.parametrize(
    ("command", "status", "error"),
    [
        (f"{PREDICT} --csv {IMAGES} > /dev/full", 1, "the output: No space left on device"),
        (f"{PREDICT} {IMAGES} >&-", 1, "standard output is closed"),
        (f"{PREDICT} --json {IMAGES} | true", CLOSED_PIPE, None),
        (
            f"{PREDICT} --explain /proc/overlays {IMAGES} > /dev/null",
            1,
            "'/proc/overlays': No such file or directory",
        ),
        (
            f"{PREDICT} --explain {'x' * 300} {IMAGES} > /dev/null",
            1,
            f"'{'x' * 300}': File name too long",
        ),
        (
            f"ulimit -v 1000000; {PREDICT} {IMAGES}",
            1,
            "the limit of memory (`ulimit -v`) is 976 MiB; expected 2048 at least, which"
            " TensorFlow needs; raise it",
        ),
        (
            "python -m brainmri.audit data/phantom > /dev/full",
            1,
            "the output: No space left on device",
        ),
        ("python -m brainmri.audit data/phantom | true", CLOSED_PIPE, None),
        ("python -m brainmri.audit data/phantom >&-", 1, "standard output is closed"),
        ("python -m brainmri.crossval --folds 0 >&-", 1, "standard output is closed"),
        ("python -m brainmri.repair > /dev/full", 1, "the output: No space left on device"),
    ],
)
def test_output_that_fails_is_one_line(done, command, status, error):
    result = shell(done, command)
    assert result.returncode == status
    assert result.stderr == (f"error: {error}\n" if error else "")


def test_closed_or_full_standard_error_leaves_standard_output_as_it_is(small):
    expected = shell(small, f"{PREDICT} --csv {IMAGES}").stdout
    assert shell(small, f"{PREDICT} --csv {IMAGES} 2>&-").stdout == expected
    result = shell(small, f"{PREDICT} --csv missing.png {IMAGES} 2>&-")
    assert (result.stdout, result.returncode) == (expected, 1)
    assert shell(small, f"{PREDICT} --csv missing.png {IMAGES} 2>/dev/full").returncode == 1


def test_overlays_on_a_full_disk_are_whole_or_missing(small, tmp_path):
    with small_disk(tmp_path / "disk", "1m"):
        fill(tmp_path / "disk/filler", left=200)
        command = f"{PREDICT} --explain {tmp_path}/disk/overlays {IMAGES} > /dev/null"
        result = shell(small, command)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert result.stderr.endswith("No space left on device\n")
        for file in (tmp_path / "disk/overlays").iterdir():
            assert file.read_bytes().endswith(b"IEND\xaeB`\x82")


def test_overlay_of_an_image_with_a_long_name(done):
    name = "ü" * 120 + ".png"
    (done.path / name).write_bytes((done.path / IMAGES / "no-000.png").read_bytes())
    done.run("python", "-m", "brainmri.predict", "--explain", "overlays", name)
    (overlay,) = (done.path / "overlays").iterdir()
    assert overlay.name == f"0001-{'ü' * 60}.png"
