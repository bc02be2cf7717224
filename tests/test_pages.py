"""The report, the plots page and the app as people see them: in Chromium, without a network."""

import json
import os
import shutil
import signal
import socket
from contextlib import contextmanager
from urllib.request import urlopen

import psutil
import pytest

from benchmarks.local_cluster import LIMIT_S, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")


@contextmanager
def browser(width=1200, height=1000):
    """A page, the requests that it makes, and what it complains of."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * LIMIT_S)
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(1000 * LIMIT_S)
        requests, complaints = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page, requests, complaints
        chromium.close()


@pytest.mark.parametrize("width", [1200, 390])
def test_the_report_is_whole_by_itself(small, tmp_path, width):
    shutil.copy(small.path / "plots/report.html", tmp_path / "report.html")  # nothing lies beside it
    ensemble = json.loads(small.read("metrics/ensemble.json"))
    with browser(width) as (page, requests, complaints):
        page.goto(f"file://{tmp_path}/report.html")
        loaded = page.eval_on_selector_all("img", "all => all.map(one => one.complete && one.naturalWidth > 100)")
        text = page.inner_text("body")
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing hangs over the side
    assert loaded == [True] * 7
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} == {f"file://{tmp_path}/report.html"}
    low, high = ensemble["interval"]["accuracy"]
    for told in (
        f"{ensemble['accuracy']:.3f}",
        f"95 % interval {low:.3f} to {high:.3f}",
        "Not for clinical use",
        "member-02",
        "train.epochs",
        "No file was left out",
        "make repro",
    ):
        assert told in text


def test_plots_page_draws_charts_after_a_move(small, tmp_path):
    small.run("dvc", "plots", "show", "-o", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere/index.html").rename(tmp_path / "moved.html")
    shutil.rmtree(tmp_path / "elsewhere")
    with browser() as (page, requests, complaints):
        page.goto(f"file://{tmp_path}/moved.html")
        page.wait_for_function("document.querySelectorAll('.vega-embed canvas, .vega-embed svg.marks').length >= 6")
        loaded = page.eval_on_selector_all("img", "all => all.map(one => one.complete && one.naturalWidth > 100)")
    assert loaded == [True] * 7
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} == {f"file://{tmp_path}/moved.html"}


def test_the_app_tells_of_uploaded_images_and_examples(small, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "bad <b>.jpg").write_text("no image")
    server = small.start("python", "-m", "app", "--port", str(port))
    try:
        address = f"http://127.0.0.1:{port}"
        assert wait_for(lambda: answers(address, server))
        with browser() as (page, requests, complaints):
            page.goto(address)
            page.wait_for_selector("#examples img")
            images = [str(small.path / "data/phantom/yes/yes-000.png"), str(tmp_path / "bad <b>.jpg")]
            page.set_input_files("#images input[type=file]", images)
            page.wait_for_selector("#figures table")
            told = page.inner_text("#figures")
            assert "yes-000.png" in told
            assert "not an image of a known format" in told
            page.wait_for_selector("#pictures img")
            assert page.eval_on_selector("#pictures img", "one => one.naturalHeight") == 12 * 32
            page.locator("#examples img").nth(1).click()
            page.wait_for_selector("#figures td:has-text('glioma 1.png')")
        assert complaints == []
        assert {url for url in requests if not url.startswith((address, "data:", "blob:"))} == set()
        listening = [one for one in psutil.Process(server.pid).net_connections() if one.status == psutil.CONN_LISTEN]
        assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
    finally:
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait(LIMIT_S) in (0, 130, -signal.SIGINT)


def answers(address, server):
    assert server.poll() is None
    try:
        urlopen(address).close()
    except OSError:
        return False
    return True
