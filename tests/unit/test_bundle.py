"""What is sent to workers, and what they keep."""

import hashlib
import os
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from brainmri.common.errors import UserError
from brainmri.common.params import Params, load_params
from brainmri.parallel import bundle
from brainmri.parallel.bundle import make_bundle, packs
from brainmri.parallel.dask_worker import FileCache, TrainerPlugin
from tests.support.workspace import make


@pytest.fixture
def made(tmp_path, monkeypatch):
    made = make(tmp_path, 2)
    for name in ("member-00", "member-01"):
        made.write(f"data/bootstrap/{name}.json", name)
    made.split([0, 1])
    made.write("data/weights/README.md", "none")
    made.write("brainmri/common/errors.py", "code")
    monkeypatch.chdir(tmp_path)
    return made


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_bundle_holds_what_members_read(made):
    bundled = make_bundle(load_params(), ["member-01"])
    expected = {"params.yaml", "data/split.json", "data/weights/README.md"}
    expected |= {str(path) for path in Path("data/rad").rglob("*") if path.is_file()}
    assert set(bundled.files) == expected
    assert all(value == digest(Path(path).read_bytes()) for path, value in bundled.files.items())
    assert bundled.samples == {"member-01": b"member-01"}
    with zipfile.ZipFile(BytesIO(bundled.code)) as archive:
        assert archive.read("brainmri/common/errors.py") == b"code"
    assert make_bundle(load_params(), ["member-01"]) == bundled


@pytest.mark.parametrize("weights", ["/root/base.h5", "../base.h5"])
def test_weights_outside_of_the_project_are_refused(made, weights):
    params = with_weights(**{"member-01": weights})
    make_bundle(params, ["member-00"])
    with pytest.raises(UserError, match=r"base\.h5' is outside of the project"):
        make_bundle(params, ["member-00", "member-01"])


def test_a_bundle_holds_the_weights_of_its_members(made):
    files = {"member-00": "data/weights/a.h5", "member-01": "data/weights/b.h5"}
    for path in files.values():
        made.write(path, path)
    params = with_weights(**files)
    made.write("data/bootstrap/member-02.json", "member-02")
    for names in (["member-00"], ["member-00", "member-01"], ["member-02", "member-01"]):
        bundled = make_bundle(params, names)
        weights = {path for path in bundled.files if path.startswith("data/weights/")}
        assert weights == {files.get(name, "data/weights/README.md") for name in names}


def with_weights(**files: str) -> Params:
    """Return the parameters with other weights files of members."""
    params = load_params()
    changed = {
        name: params.ensemble[name].model_copy(update={"weights_file": file})
        for name, file in files.items()
    }
    return params.model_copy(update={"ensemble": {**params.ensemble, **changed}})


def test_packs_hold_each_missing_file_once(made, monkeypatch):
    monkeypatch.setattr(bundle, "PACK_BYTES", 100)
    files = {}
    for name, content in {"a": b"x" * 80, "b": b"y" * 80, "c": b"x" * 80, "d": b"z"}.items():
        Path(name).write_bytes(content)
        files[name] = digest(content)
    sent = list(packs(files, {files["a"], files["b"], files["d"]}))
    assert [set(pack) for pack in sent] == [{files["a"], files["b"]}, {files["d"]}]
    assert sent[0][files["a"]] == b"x" * 80
    assert list(packs(files, {files["d"]})) == [{files["d"]: b"z"}]
    Path("b").write_bytes(b"changed")
    with pytest.raises(UserError, match="'b' changed while fan-out ran"):
        list(packs(files, {files["b"]}))


def test_a_file_cache_keeps_what_is_needed(tmp_path):
    cache = FileCache(tmp_path, limit=250)
    contents = [bytes([value]) * 100 for value in range(3)]
    digests = [digest(content) for content in contents]
    assert cache.missing(set(digests)) == set(digests)
    cache.add(dict(zip(digests, contents, strict=True)))
    assert cache.missing(set(digests)) == set()
    assert [cache.path(value).read_bytes() for value in digests] == contents
    for age, value in enumerate(digests):
        os.utime(cache.path(value), (age, age))
    cache.shrink({digests[0]})
    assert cache.missing(set(digests)) == {digests[1]}  # the longest unused that is not needed
    with pytest.raises(ValueError, match="changed on the way"):
        cache.add({digests[1]: b"other"})


def test_members_are_laid_out_as_in_the_project(made, tmp_path):
    bundled = make_bundle(load_params(), ["member-01"])
    cache = FileCache(tmp_path / "cache")
    plugin = TrainerPlugin(bundled.code, bundled.files, str(tmp_path), str(tmp_path / "token"))
    plugin.cache = cache
    assert plugin.missing() == set(bundled.files.values())
    for pack in packs(bundled.files, plugin.missing()):
        cache.add(pack)
    assert plugin.missing() == set()
    for name in ("apart", "shared"):
        folder = tmp_path / name
        plugin.lay_out(folder, "member-01", bundled.samples["member-01"])
        for path in bundled.files:
            assert (folder / path).read_bytes() == Path(path).read_bytes()
        assert (folder / "data/bootstrap/member-01.json").read_bytes() == b"member-01"
        (tmp_path / "token").touch()  # now the worker sees the driver's disk
    assert (tmp_path / "shared/data/split.json").resolve() == tmp_path / "data/split.json"
    made.write("params.yaml", "edited")
    with pytest.raises(ValueError, match=r"params\.yaml changed"):
        plugin.lay_out(tmp_path / "late", "member-01", b"")
