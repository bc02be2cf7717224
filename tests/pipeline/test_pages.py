"""The report, the plots page and the app in Chromium, without a network."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import psutil
import pytest

from tests.support.waiting import LIMIT_S, wait_for

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
LOADED = "images => images.map(image => image.complete && image.naturalWidth > 100)"
CHARTS_ARE_DRAWN = (
    "document.querySelectorAll('.vega-embed canvas, .vega-embed svg.marks').length >= 6"
)
EXAMPLE_IS_PREDICTED = "document.getElementById('predictions').innerText.includes('glioma 1.png')"
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
    assert page_width <= width
    assert loaded == [True] * 8
    assert chromium.errors == []
    assert chromium.addresses() == {address}
    ensemble = json.loads(small.read("metrics/ensemble.json"))
    low, high = ensemble["interval"]["accuracy"]
    for expected in (
        f"{ensemble['accuracy']:.3f}",
        f"95 % interval {low:.3f} to {high:.3f}",
        "Not for clinical use",
        "member-02",
        "train.epochs",
        "No file was skipped",
        "make repro",
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    (tmp_path / "bad <b>.jpg").write_text("no image")
    uploads = [str(small.path / "data/phantom/yes/yes-000.png"), str(tmp_path / "bad <b>.jpg")]
    server = small.start("python", "-m", "brainmri.app", "--port", str(port))
    try:
        assert wait_for(lambda: answers(address, server))
        with browser() as chromium:
            page = chromium.page
            page.goto(address)
            page.wait_for_selector("#examples img")
            page.set_input_files("#images input[type=file]", uploads)
            page.wait_for_selector("#predictions table")
            text = page.inner_text("#predictions")
            assert "yes-000.png" in text
            assert "not an image of a known format" in text
            with page.expect_download() as download:
                page.click("#download")
            content = Path(download.value.path()).read_text("utf-8")
            assert content.splitlines()[1].split(",")[0].endswith("yes-000.png")
            page.wait_for_selector("#overlays img")
            height = page.eval_on_selector("#overlays img", "image => image.naturalHeight")
            assert height == 12 * 32
            page.locator("#examples img").nth(1).click()
            page.wait_for_function(EXAMPLE_IS_PREDICTED)
        assert chromium.errors == []
        assert all(url.startswith(address) for url in chromium.addresses())
        connections = psutil.Process(server.pid).net_connections()
        listening = [c for c in connections if c.status == psutil.CONN_LISTEN]
        assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
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
