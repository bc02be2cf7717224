"""The report, the plots page and the app in Chromium, without a network."""

import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.support.dicom_files import encode_dicom
from tests.support.project import Project
from tests.support.waiting import LIMIT_S, wait_for

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
LOADED = "images => images.map(image => image.complete && image.naturalWidth > 100)"
CHARTS_ARE_DRAWN = (
    "document.querySelectorAll('.vega-embed canvas, .vega-embed svg.marks').length >= 6"
)
EXAMPLE_IS_PREDICTED = "document.getElementById('predictions').innerText.includes('glioma 1.png')"
# From elements to those of them whose text is on several lines
BROKEN = """elements => elements.filter(element => {
    const range = document.createRange()
    range.selectNodeContents(element)
    return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1
}).map(element => element.innerText)"""
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")


class Browser(NamedTuple):
    """A page of Chromium.

    Attributes
    ----------
    page : playwright.sync_api.Page
    requests : list of str
        URLs that the page requests.
    errors : list of str
        What it logs as an error.
    """

    page: object
    requests: list[str]
    errors: list[str]

    def addresses(self) -> set[str]:
        """The requested URLs that are not part of the page itself."""
        return {url for url in self.requests if not url.startswith(("data:", "blob:"))}

    def download_table(self, name: str) -> list[dict[str, str]]:
        """Click the app's button for the CSV of a table; return its rows."""
        with self.page.expect_download() as download:
            self.page.click(f"#download-{name}")
        assert download.value.suggested_filename == f"{name}.csv"
        return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8"))))


@contextmanager
def browser(width: int = 1200, height: int = 1000) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * LIMIT_S
        )
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(1000 * LIMIT_S)
        requests, errors = [], []

        def log(message) -> None:
            if message.type == "error":
                errors.append(message.text)

        page.on("request", lambda request: requests.append(request.url))
        page.on("console", log)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield Browser(page, requests, errors)
        chromium.close()


@pytest.mark.parametrize("width", [1200, 390])
def test_report_needs_no_other_file(small, tmp_path, width):
    shutil.copy(small.path / "plots/report.html", tmp_path / "report.html")
    address = f"file://{tmp_path}/report.html"
    with browser(width) as chromium:
        chromium.page.goto(address)
        loaded = chromium.page.eval_on_selector_all("img", LOADED)
        text = chromium.page.inner_text("body")
        page_width = chromium.page.evaluate("document.documentElement.scrollWidth")
        intervals = chromium.page.locator("td", has_text=re.compile(r"^[0-9.]+ to [0-9.]+$"))
        count, broken = intervals.count(), intervals.evaluate_all(BROKEN)
    assert page_width <= width
    assert broken == []
    assert loaded == [True] * 8
    assert chromium.errors == []
    assert chromium.addresses() == {address}
    ensemble = json.loads(small.read("metrics/ensemble.json"))
    sets = ensemble["prediction_sets"]
    parts = [ensemble["decision_rule"]["rates"], sets, *sets["by_class"].values()]
    # Predictive values have none where no image is predicted so
    expected_count = sum(bool(interval) for part in parts for interval in part["interval"].values())
    assert count == expected_count >= 8
    low, high = ensemble["interval"]["accuracy"]
    for expected in (
        f"{ensemble['accuracy']:.3f}",
        f"95 % interval {low:.3f} to {high:.3f}",
        "Not for clinical use",
        "member-02",
        "train.epochs",
        "No file was skipped",
        "make .venv/ready",
    ):
        assert expected in text


def test_plots_page_draws_charts_after_a_move(small, tmp_path):
    small.run("dvc", "plots", "show", "-o", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").rename(tmp_path / "moved")
    address = f"file://{tmp_path}/moved/index.html"
    with browser() as chromium:
        chromium.page.goto(address)
        chromium.page.wait_for_function(CHARTS_ARE_DRAWN)
        loaded = chromium.page.eval_on_selector_all("img", LOADED)
    assert loaded == [True] * 8
    assert chromium.errors == []
    assert all(url.startswith(f"file://{tmp_path}/moved/") for url in chromium.addresses())


def test_app_predicts_uploads_and_examples(small, tmp_path):
    (tmp_path / "bad <b>.jpg").write_text("no image")
    uploads = [str(small.path / "data/phantom/yes/yes-000.png"), str(tmp_path / "bad <b>.jpg")]
    with app_in_browser(small) as (chromium, process):
        page = chromium.page
        page.wait_for_selector("#examples img")
        page.set_input_files("#images input[type=file]", uploads)
        page.wait_for_selector("#predictions table")
        text = page.inner_text("#predictions")
        assert "yes-000.png" in text
        assert "not an image of a known format" in text
        (prediction,) = chromium.download_table("predictions")
        assert prediction["file"].endswith("yes-000.png")
        page.wait_for_selector("#overlays img")
        height = page.eval_on_selector("#overlays img", "image => image.naturalHeight")
        assert height == 12 * 32
        page.locator("#examples img").nth(1).click()
        page.wait_for_function(EXAMPLE_IS_PREDICTED)
        assert page.locator("#patients").count() == 0
        connections = psutil.Process(process.pid).net_connections()
    listening = [c for c in connections if c.status == psutil.CONN_LISTEN]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


def test_app_predicts_patients_of_dicom_files(small, tmp_path):
    """Identifiers are not on the page; without DICOM files there are no patients."""
    uploads = []
    for index, patient in enumerate(("Doe-7", "Doe-9", "Doe-7")):
        with Image.open(small.path / f"data/phantom/yes/yes-{index:03}.png") as image:
            levels = np.asarray(image.convert("L"))
        file = tmp_path / f"{index}.dcm"
        file.write_bytes(encode_dicom(levels, PatientID=patient))
        uploads.append(str(file))
    with app_in_browser(small) as (chromium, _):
        page = chromium.page
        page.set_input_files("#images input[type=file]", uploads)
        page.wait_for_selector("#patients table")
        cells = page.locator("#patients [role=gridcell]").all_inner_texts()
        label = page.inner_text("#patients .label")
        assert page.eval_on_selector_all("#patients .header", BROKEN) == []
        patients = chromium.download_table("patients")
        images = chromium.download_table("predictions")
        assert "Doe" not in page.content()
        page.click("#images button[aria-label=Clear]")
        page.wait_for_selector("#patients", state="detached")
    rows = [cells[start : start + 8] for start in range(0, len(cells), 8)]
    assert [row[:3] for row in rows] == [["0", "2", "0.dcm"], ["1", "1", "1.dcm"]]
    assert "no prediction sets: the patients of the training images are unknown" in label
    assert [patient["slices"] for patient in patients] == ["2", "1"]
    first, second, third = (float(image["probability of yes"]) for image in images)
    means = pytest.approx([(first + third) / 2, second], abs=2e-6)
    assert [float(patient["probability of yes"]) for patient in patients] == means


@contextmanager
def app_in_browser(project: Project) -> Iterator[tuple[Browser, subprocess.Popen]]:
    """Open the app in a browser; check that it logs no error and stays on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    server = project.start("python", "-m", "brainmri.app", "--port", str(port))
    try:
        assert wait_for(lambda: answers(address, server))
        with browser() as chromium:
            chromium.page.goto(address)
            yield chromium, server
        assert chromium.errors == []
        assert all(url.startswith(address) for url in chromium.addresses())
    finally:
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait(LIMIT_S) in (0, 130, -signal.SIGINT)


def answers(address: str, server: subprocess.Popen) -> bool:
    assert server.poll() is None
    try:
        urlopen(address).close()
    except OSError:
        return False
    return True
