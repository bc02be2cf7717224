"""Exported formats compute what the Keras model does, and the programs of docs/deploy.md run."""

import json
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from brainmri.common.errors import UserError
from brainmri.images.decoding import decode
from brainmri.images.phantoms import draw
from brainmri.models import formats
from brainmri.models.ensemble import batch_predictor, build_ensemble_model
from brainmri.models.formats import LIMIT, check_packages, write_formats
from brainmri.models.litert import load_litert, to_litert
from brainmri.models.novelty import fit_novelty, novelty_model, thumbnailer
from brainmri.models.onnx_graph import load_onnx, to_onnx
from brainmri.models.serving import load_serving
from brainmri.networks.applications import APPLICATIONS
from brainmri.networks.builders import NETWORKS, build_network
from brainmri.networks.saving import save_model
from brainmri.networks.tta import with_tta
from tests.support.checkout import ROOT
from tests.support.image_files import SLICES, place_on_canvas
from tests.support.tiny_networks import SIDE, pooling_network
from tests.support.waiting import LIMIT_S

ALL = ["keras", "saved_model", "onnx", "litert"]
ABOUT = {
    "classes": ["no", "yes"],
    "size": SIDE,
    "crop": True,
    "weights": {"member-00": 0.5, "member-01": 0.3, "member-02": 0.2},
    "novelty": {"warn_above": 1.0},
    "decision": {
        "rule": {"name": "argmax", "threshold": None, "costs": None},
        "positive": "yes",
    },
}
BLOCK = re.compile(
    r"^```(?:python|html)\n(?:#|<!--) (\w+\.\w+)(.*?)^```$", re.MULTILINE | re.DOTALL
)
DEPLOY = (ROOT / "docs/deploy.md").read_text("utf-8")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CANVAS_LEVELS = """() => {
  const {width, height} = document.getElementById("prepared");
  const context = document.getElementById("prepared").getContext("2d");
  return [...context.getImageData(0, 0, width, height).data].filter((_, i) => i % 4 == 0);
}"""


def random_weights(model: keras.Model, seed: int) -> None:
    """Give all weights of a network values that matter: outputs differ between images."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        values = np.asarray(variable)
        if variable.name in ("gamma", "moving_variance", "variance"):
            variable.assign(rng.uniform(0.5, 1.5, values.shape))
        elif variable.name in ("beta", "bias", "moving_mean", "mean"):
            variable.assign(rng.normal(0, 0.1, values.shape))
        elif variable.name == "kernel":
            inputs = values[..., 0].size if values.shape[-1] > 1 else values[..., 0, 0].size
            variable.assign(rng.normal(0, np.sqrt(2 / inputs), values.shape))


def standardize_scores(network: keras.Model, images: np.ndarray) -> None:
    """Scale the last layer of a network so that these images have different probabilities."""
    layer = network.get_layer("probabilities")
    features = keras.Model(network.inputs, layer.input).predict_on_batch(images)
    scores = features @ np.asarray(layer.kernel)
    scale = scores.std()
    layer.kernel.assign(layer.kernel / scale)
    layer.bias.assign(-scores.mean(axis=0) / scale)


def outputs_of(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    outputs = batch_predictor(model)(images)
    assert np.ptp(outputs["members"], axis=0).max() > 10 * LIMIT
    return outputs


def assert_close(outputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(outputs) == set(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(outputs[key], values, atol=LIMIT, err_msg=key)


@pytest.mark.parametrize("name", [*NETWORKS, *APPLICATIONS])
def test_onnx_of_every_network(name):
    network = build_network(name, 48, 3, 0.0, 1e-4, 0.3)
    random_weights(network, 0)
    model = build_ensemble_model({"a": network}, {"a": 1.0})
    rng = np.random.default_rng(0)
    images = np.kron(rng.integers(0, 256, (3, 6, 6, 1)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    standardize_scores(network, images)
    predict = load_onnx(to_onnx(model, {}))
    assert_close(predict(images), outputs_of(model, images))
    assert_close(predict(images[:1]), batch_predictor(model)(images[:1]))


@pytest.mark.parametrize("views", ["plain", "mirrored", "zoomed"])
def test_every_format_with_views_and_shared_features(views):
    """With members of their own networks, and two that share the features of a frozen one."""
    networks = {name: pooling_network(seed) for seed, name in enumerate("abc")}
    networks["c"].set_weights(
        [*networks["b"].get_weights()[:-2], *networks["c"].get_weights()[-2:]]
    )
    members = {name: with_tta(network, views) for name, network in networks.items()}
    weights = dict.fromkeys(members, 1 / 3)
    frozen = {"b": "shared", "c": "shared"}
    novelty = fitted_novelty(images := random_images(40))
    model = build_ensemble_model(
        members, weights, 1.3, [0.0, 0.2, -0.1], novelty, frozen=frozen, views=views
    )
    expected = outputs_of(model, images)
    assert_close(load_onnx(to_onnx(model, {}))(images), expected)
    assert_close(load_litert(to_litert(model, {}))(images), expected)


def random_images(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (
        rng.integers(0, 100, (count, SIDE, SIDE, 1)) + rng.integers(0, 156, (count, 1, 1, 1))
    ).astype(np.uint8)


def fitted_novelty(images: np.ndarray) -> keras.Model:
    shape = images.shape[1:]
    thumbnails = thumbnailer(shape).predict(images.astype(np.float32), verbose=0)
    return novelty_model(
        shape, *fit_novelty(thumbnails.astype(float), np.arange(len(thumbnails)), 0.1)
    )


class Exported:
    """A folder with an ensemble of three tiny networks in every format.

    Attributes
    ----------
    path : Path
    differences : dict
        See `write_formats`.
    """

    def __init__(self, path: Path):
        self.path = path
        members = {name: pooling_network(seed, 2) for seed, name in enumerate(ABOUT["weights"])}
        prepared = [self.prepared(image, number) for number, image in enumerate(SLICES)]
        self.images = np.stack(prepared)[..., np.newaxis]
        novelty = fitted_novelty(self.images)
        model = build_ensemble_model(members, ABOUT["weights"], 1.2, [0.0, 0.3], novelty)
        save_model(model, path / "ensemble.keras", ABOUT)
        self.model = keras.models.load_model(path / "ensemble.keras")
        self.expected = outputs_of(self.model, self.images)
        self.differences = self.write()

    def prepared(self, image: np.ndarray, number: int) -> np.ndarray:
        """Store an image, and return it as `ingest` does."""
        file = self.path / f"{number}.png"
        Image.fromarray(image).save(file)
        return decode(file, SIDE, crop=True).pixels

    def write(self, names: list[str] = ALL):
        halves = np.array_split(self.images, 2)
        return write_formats(names, self.model, ABOUT, lambda: iter(halves), self.expected)

    def read(self, name: str) -> bytes:
        return (self.path / "models/exported" / name).read_bytes()

    def line(self, number: int) -> str:
        """What the programs print of an image."""
        probabilities = self.expected["probabilities"][number]
        name = ABOUT["classes"][probabilities.argmax()]
        return f"{name}: no {probabilities[0]:.3f}, yes {probabilities[1]:.3f}"


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Iterator[Exported]:
    """It is the current folder, and has the programs of docs/deploy.md."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("exported")
        patch.chdir(path)
        for name, program in BLOCK.findall(DEPLOY):
            (path / name).write_text("#" + program if name.endswith(".py") else "<!--" + program)
        yield Exported(path)


def test_differences_from_keras_are_reported(exported):
    assert [*exported.differences] == ALL[1:]
    for difference in exported.differences.values():
        assert set(difference) == {"probabilities", "members", "novelty"}
        assert max(difference.values()) < LIMIT
    folder = exported.path / "models/exported"
    loaded = [
        load_serving(folder / "saved_model"),
        load_onnx(str(folder / "ensemble.onnx")),
        load_litert(exported.read("ensemble.tflite")),
    ]
    for predict in loaded:
        assert_close(predict(exported.images), exported.expected)


def test_each_file_holds_what_its_users_must_know(exported):
    assert json.loads(exported.read("about.json")) == ABOUT
    assert json.loads(exported.read("saved_model/assets.extra/about.json")) == ABOUT
    file = onnx.load_from_string(exported.read("ensemble.onnx"))
    assert {item.key: json.loads(item.value) for item in file.metadata_props} == {"about": ABOUT}
    with zipfile.ZipFile(exported.path / "models/exported/ensemble.tflite") as archive:
        assert archive.namelist() == ["about.json"]
        assert json.loads(archive.read("about.json")) == ABOUT


def test_onnx_file_has_no_code_and_no_training(exported):
    file = onnx.load_from_string(exported.read("ensemble.onnx"))
    assert [(opset.domain, opset.version) for opset in file.opset_import] == [("", 18)]
    assert not file.functions
    assert not file.graph.quantization_annotation
    operators = {node.op_type for node in file.graph.node}
    assert not {operator for operator in operators if "Random" in operator or "Dropout" in operator}
    assert all(not constant.external_data for constant in file.graph.initializer)


def test_equal_models_give_equal_bytes(exported):
    names = ("about.json", "ensemble.onnx", "ensemble.tflite")
    before = {name: exported.read(name) for name in names}
    pooling_network(7)  # Keras numbers layers as they are made
    exported.model = keras.models.load_model(exported.path / "ensemble.keras")
    exported.write(["onnx", "litert"])
    for name, content in before.items():
        assert exported.read(name) == content
        assert str(exported.path).encode() not in content
    assert sorted(file.name for file in (exported.path / "models/exported").iterdir()) == [*names]
    exported.write()


@pytest.mark.parametrize("error", [0.01, np.nan])
@pytest.mark.parametrize("key", ["probabilities", "members", "novelty"])
def test_format_that_differs_is_refused(exported, monkeypatch, tmp_path, key, error):
    def write(model, about, text):
        return lambda images: {
            **batch_predictor(model)(images),
            key: batch_predictor(model)(images)[key] + error,
        }

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(formats.WRITERS, "onnx", write)
    with pytest.raises(UserError, match=f"{key} of the onnx file differ .* by up to (0.01|nan)"):
        exported.write(["onnx"])
    assert not (tmp_path / "models/exported").exists()


@pytest.mark.parametrize(
    ("name", "missing"), [("onnx", "onnx and onnxruntime"), ("litert", "ai-edge-litert")]
)
def test_missing_package_is_one_line(monkeypatch, name, missing):
    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"{name} needs {missing}, .*requirements/export.txt"):
        check_packages(["keras", name])
    check_packages(["keras", "saved_model"])


def test_unknown_layer_is_one_line():
    images = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="images")
    gray = keras.ops.cast(images, "float32")
    smooth = keras.layers.GaussianNoise(0.1, name="noisy")(gray)
    model = keras.Model(images, {"novelty": keras.ops.mean(smooth, (1, 2, 3))})
    with pytest.raises(UserError, match=r"can't hold the layer noisy \(GaussianNoise\)") as error:
        to_onnx(model, {})
    assert "\n" not in str(error.value)


def test_16_bit_floats_are_one_line_of_litert():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = with_tta(build_network("residual-sides", 32, 2, 0.0, 0.0, 0.0), "zoomed")
    finally:
        keras.config.set_dtype_policy(policy)
    ensemble = build_ensemble_model({"a": model}, {"a": 1.0})
    with pytest.raises(UserError, match=r"LiteRT can't hold the model .*float32") as error:
        to_litert(ensemble, {})
    assert "\n" not in str(error.value)


def run_program(exported: Exported, *arguments: object) -> str:
    """Run a program of docs/deploy.md in a Python that can't import this project."""
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, cwd=exported.path, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def noise_file(folder: Path) -> Path:
    levels = np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)
    Image.fromarray(levels).save(folder / "noise.png")
    return folder / "noise.png"


@pytest.mark.parametrize("runtime", ["onnx", "litert"])
def test_program_predicts(exported, tmp_path, runtime):
    program = f"classify_{runtime}.py"
    model = f"models/exported/ensemble.{'onnx' if runtime == 'onnx' else 'tflite'}"
    for number in (0, len(SLICES) - 1):
        assert run_program(exported, program, model, f"{number}.png").startswith(
            exported.line(number)
        )
    assert "unlike the training images" in run_program(
        exported, program, model, noise_file(tmp_path)
    )


def test_program_asks_a_server(exported):
    served = load_serving(exported.path / "models/exported/saved_model")
    with serving(served) as address:
        printed = run_program(
            exported, "classify_rest.py", address, "models/exported/about.json", "3.png"
        )
    assert printed.startswith(exported.line(3))


@contextmanager
def serving(predict) -> Iterator[str]:
    """Answer in the row format of TensorFlow Serving's REST API."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/models/ensemble:predict"
            assert set(body) == {"instances"}
            outputs = predict(np.array(body["instances"], np.uint8))
            rows = zip(*(values.tolist() for values in outputs.values()), strict=True)
            predictions = [dict(zip(outputs, row, strict=True)) for row in rows]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"predictions": predictions}).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def odd_images() -> list[Image.Image]:
    """Images of several modes and shapes, small heads on large canvases, and blanks."""
    phantom = Image.fromarray(draw("yes", np.random.default_rng(0)).image)
    clear = phantom.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    red = Image.merge("RGB", [phantom, phantom.point(lambda x: x // 2), phantom.rotate(90)])
    wide = phantom.resize((301, 97))
    large = [place_on_canvas(SLICES[0], times, 0, 0.5, 0.3)[0] for times in (3, 6)]
    indexed = phantom.convert("P")
    return [phantom, clear, red, wide, wide.rotate(90, expand=True), indexed, *large]


@pytest.mark.parametrize("size", [16, 128])
def test_preparation_gives_the_pixels_of_ingest(exported, tmp_path, monkeypatch, size):
    monkeypatch.syspath_prepend(exported.path)
    from prepare import prepare

    for number, image in enumerate(odd_images()):
        file = tmp_path / f"{number}.png"
        image.save(file)
        for crop in (True, False):
            expected = decode(file, size, crop).pixels
            pixels = prepare(file, {"size": size, "crop": crop})
            np.testing.assert_array_equal(pixels[0, ..., 0], expected)


@pytest.mark.parametrize("layout", [(np.uint16, "png"), (np.uint16, "tiff"), (np.float32, "tiff")])
def test_preparation_refuses_more_than_8_bits(exported, tmp_path, monkeypatch, layout):
    monkeypatch.syspath_prepend(exported.path)
    from prepare import prepare

    levels_type, suffix = layout
    file = tmp_path / f"deep.{suffix}"
    Image.fromarray(SLICES[0].astype(levels_type) * 16).save(file)
    with pytest.raises(ValueError, match="more than 8 bits"):
        prepare(file, {"size": 16, "crop": True})


def test_preparation_refuses_stacks(exported, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(exported.path)
    from prepare import prepare

    pages = [Image.fromarray(SLICES[0]), Image.fromarray(SLICES[1])]
    pages[0].save(tmp_path / "stack.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="several frames"):
        prepare(tmp_path / "stack.tiff", {"size": 16, "crop": True})


def test_programs_decide_by_the_rule(exported, monkeypatch, capsys):
    monkeypatch.syspath_prepend(exported.path)
    from prepare import report

    costs = [[0.0, 1.0], [9.0, 0.0]]
    for threshold, of_costs, name in ((None, None, "no"), (0.1, None, "yes"), (None, costs, "yes")):
        rule = {"name": "any", "threshold": threshold, "costs": of_costs}
        about = ABOUT | {"decision": {"rule": rule, "positive": "yes"}}
        report(about, [0.8, 0.2], 0.5)
        assert capsys.readouterr().out.startswith(f"{name}: no 0.800, yes 0.200")


def test_project_decodes_for_other_programs(exported, tmp_path):
    command = [sys.executable, exported.path / "decode_here.py", "5.png", tmp_path / "stored.png"]
    subprocess.run(
        command, cwd=exported.path, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True
    )
    with Image.open(tmp_path / "stored.png") as stored:
        np.testing.assert_array_equal(np.asarray(stored), exported.images[5, ..., 0])


@pytest.fixture(scope="module")
def page(exported) -> Path:
    """The page of docs/deploy.md; skips where its runtime can't be had."""
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    package = re.search(r"npm install (onnxruntime-web@\S+)", DEPLOY).group(1)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", package]
    if not shutil.which("npm") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"needs npm and a registry that has {package}")
    folder = "models/exported"
    files = (f"{folder}/ensemble.onnx", f"{folder}/about.json", "classify.html")
    run_program(exported, "make_page.py", *files)
    return exported.path / "classify.html"


def test_page_predicts_without_a_server(exported, page, tmp_path):
    """On a disk, from a file input, with no connection; the same probabilities but for rounding."""
    from playwright.sync_api import sync_playwright

    files = {exported.path / f"{number}.png": exported.images[number, ..., 0] for number in (0, 15)}
    for number, image in enumerate(odd_images()):
        image.save(tmp_path / f"{number}.png")
        file = tmp_path / f"{number}.png"
        files[file] = decode(file, SIDE, crop=True).pixels
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        browser = chromium.new_page()
        browser.set_default_timeout(1000 * LIMIT_S)
        requests, errors = [], []
        browser.on("request", lambda request: requests.append(request.url))
        browser.on("pageerror", lambda error: errors.append(str(error)))
        browser.on("console", lambda line: line.type == "error" and errors.append(line.text))
        browser.goto(page.as_uri())
        browser.wait_for_selector("#files:enabled")
        for file, pixels in files.items():
            browser.set_input_files("#files", file)
            browser.wait_for_selector("#prediction:has-text(':')")
            canvas = browser.evaluate(CANVAS_LEVELS)
            assert np.abs(np.reshape(canvas, (SIDE, SIDE)) - pixels.astype(int)).max() <= 1, file
            text = browser.inner_text("#prediction")
            expected = batch_predictor(exported.model)(pixels[np.newaxis, ..., np.newaxis])
            probability = float(re.search(r"yes ([\d.]+)", text).group(1))
            assert probability == pytest.approx(expected["probabilities"][0, 1], abs=0.02), file
            assert ("unlike" in text) == (expected["novelty"][0] > 1)
        browser.set_input_files("#files", exported.path / "models/exported/about.json")
        browser.wait_for_selector("#prediction:has-text('no prediction:')")
        chromium.close()
    assert errors == []
    assert {url.partition(":")[0] for url in requests} == {"file", "blob"}
    assert len([url for url in requests if url.startswith("file:")]) == 1
