"""The commands of docs/tutorial.md work one after the other in a new clone."""

import shutil

from docs.make_tutorial import BLOCK, MACHINE


def test_tutorial_works_as_written(done, tmp_path):
    """With small members, and the built-in images in place of the public ones."""
    done.edit(split__folds=2)
    done.commit("Two folds")
    former = done.read("docs/tutorial.md")
    images = shutil.copytree(done.path / "data/phantom", tmp_path / "images")
    image = sorted((images / "no").iterdir())[0]
    image.rename(image.with_name("20 no.png"))  # as the public ones are called
    done.run("python", "-m", "docs.make_tutorial", str(images), str(tmp_path / "tutorial"))
    page = done.read("docs/tutorial.md")
    outputs = [block["output"] for block in BLOCK.finditer(page) if block["output"]]
    assert all("*Time: " in output for output in outputs)
    assert without_outputs(page) == without_outputs(former)
    summary = "48 images (no 24, yes 24); 0 unusable files"
    assert any(summary in output for output in outputs)
    assert "Stage 'fan-out' didn't change, skipping" in outputs[-1]


def without_outputs(page: str) -> str:
    """Return the page as a person writes it."""
    blocks = BLOCK.sub(lambda block: block["commands"], page)
    return MACHINE.sub("", blocks)
