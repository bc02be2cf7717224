"""Experiments that are queued or run with `--temp` have their source, or are refused in a line."""

import shutil

from tests.support.project import Project, ran


def queue(project: Project, source: str, *options: str, ok: bool = False) -> str:
    """Queue an experiment on a source; check that a failure is one line.

    Check that a success is the only one in the queue, which has none of those refused before.

    Returns
    -------
    str
        What the command printed.
    """
    arguments = ("--queue", "ingest", "-S", f"data.source={source}", *options)
    output = project.run("dvc", "exp", "run", *arguments, ok=ok)
    if not ok:
        assert [line for line in output.splitlines() if line.strip()] == [output.strip()], output
        assert output.stderr.startswith("error: ")
    else:
        assert project.run("dvc", "queue", "status").stdout.count("Queued") == 1
    return output.strip()


def test_experiment_without_its_files_is_refused(project):
    absolute = project.path.parent / "images"
    shutil.copytree(project.path / "data/raw", absolute)
    (project.path / "data/link").symlink_to(absolute)
    project.run("git", "commit", "-qam", "Parameters")

    line = queue(project, "../images")
    assert "relative path out of the project" in line
    assert line.endswith(f"give the absolute path: {absolute}")
    line = queue(project, "data/link/", "-S", "split.fold=0,1")
    assert "'data/link' is a symbolic link" in line
    assert line.endswith(f"give its target: {absolute}")
    assert "data/raw/no/0.png' is neither in DVC nor in Git" in queue(project, "data/raw")
    output = project.run("dvc", "exp", "run", "--temp", "ingest", ok=False)
    assert "run `dvc add data/raw` and the `git add` that it prints" in output.stderr
    assert not ran(output)

    for arguments in (
        "ingest --temp --copy-paths data/raw",
        f"ingest --temp -S data.source={absolute}",
    ):
        assert "8 images" in project.run("dvc", "exp", "run", *arguments.split())
    project.run("dvc", "add", "data/raw")
    line = queue(project, "data/raw")
    assert "data/raw.dvc, which" in line
    assert line.endswith("it is not in Git; run `git add data/raw.dvc`")
    project.run("git", "add", "data/raw.dvc")
    arguments = ("--temp", "ingest", "-S", "ingest.image_size=33")
    assert "8 images" in project.run("dvc", "exp", "run", *arguments)
    queue(project, "./data/phantom/", ok=True)


def test_source_in_a_tracked_folder_may_be_missing(project):
    raw = project.path / "data/raw"
    raw.rename(project.path / "set")
    raw.mkdir()
    (project.path / "set").rename(raw / "set")
    project.run("dvc", "add", "data/raw")
    shutil.rmtree(raw)
    assert "8 images" in project.experiment("ingest", **{"data.source": "data/raw/set/"})


def test_partly_committed_source_is_refused(project):
    project.run("git", "add", "-f", "data/raw/no", "data/raw/yes/0.png")
    project.run("git", "commit", "-qam", "Images")
    (project.path / "data/raw/yes/.DS_Store").write_text("x")
    assert "'data/raw/yes/1.png' is neither in DVC nor in Git" in queue(project, "data/raw")
    project.run("git", "add", "-f", *(f"data/raw/yes/{index}.png" for index in range(4)))
    queue(project, "data/raw", ok=True)
