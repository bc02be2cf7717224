"""Running the stage `ingest` in a copy of the project."""

import json

import h5py

from tests.support.project import Output, Project

INGEST = ("python", "-m", "stages", "ingest")
DVC_INGEST = ("dvc", "repro", "ingest")


def run_ingest(
    project: Project, ok: bool = True, command: tuple[str, ...] = INGEST
) -> tuple[Output, set[str], dict[str, str]]:
    """Run the stage; check that its outputs fit each other.

    Returns
    -------
    output : Output
    stored : set of str
        Paths of the stored images.
    reasons : dict of str to str
        Why other files were skipped, by path.
    """
    output = project.run(*command, ok=ok)
    assert "Traceback" not in output
    if not ok:
        return output, set(), {}
    metadata = json.loads(project.read("data/rad/metadata.json"))
    with h5py.File(project.path / "data/rad/image_data.h5") as file:
        assert len(file["images"]) == len(file["labels"]) == len(metadata["images"])
        classes = [metadata["classes"][label] for label in file["labels"]]
    assert classes == [image["class"] for image in metadata["images"]]
    reasons = {file["path"]: file["reason"] for file in metadata["rejected"]}
    printed = [line for line in output.stdout.splitlines() if line.startswith("skipped: ")]
    assert len(printed) == len(reasons)
    return output, {image["path"] for image in metadata["images"]}, reasons
