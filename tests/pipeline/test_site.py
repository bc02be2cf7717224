"""The documentation as a site: its links lead somewhere, and it needs no network."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.test_pages import CHROMIUM, browser
from tests.support.checkout import ROOT, checkout
from tests.support.waiting import wait_for

MAKE_SITE = [sys.executable, "-m", "docs.make_site"]
LOADED = "images => images.every(image => image.complete && image.naturalWidth > 0)"
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built in strict mode: a broken link or anchor is an error."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([*MAKE_SITE, folder], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize(
    ("link", "message"),
    [("docs/nowhere.md", "nowhere"), ("docs/faq.md#nowhere", "#nowhere"), ("#nowhere", "#nowhere")],
)
def test_broken_links_are_errors(tmp_path, link, message):
    folder = checkout(tmp_path / "project")
    with open(folder / "README.md", "a", encoding="utf-8") as page:
        page.write(f"\n[a link]({link})\n")
    result = subprocess.run(
        [*MAKE_SITE, tmp_path / "site"], cwd=folder, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert message in result.stderr


@needs_chromium
@pytest.mark.parametrize("width", [1200, 390])
def test_pages_need_no_network(site, width):
    pages = sorted(set(site.rglob("*.html")) - {site / "404.html"})  # which only a server shows
    assert len(pages) > 15
    with browser(width) as chromium:
        for path in pages:
            chromium.page.goto(f"file://{path}")
            assert chromium.page.eval_on_selector_all("article img", LOADED), path
            page_width = chromium.page.evaluate("document.documentElement.scrollWidth")
            assert page_width <= width, path
    assert chromium.errors == []
    assert [url for url in chromium.addresses() if not url.startswith(f"file://{site}/")] == []


@needs_chromium
def test_search_works_from_the_disk(site):
    with browser() as chromium:
        page = chromium.page

        def has_results() -> bool:
            """Search once; on a busy machine, the page may miss that its index is loaded."""
            page.goto(f"file://{site}/index.html")
            page.fill("[data-md-component=search-query]", "near duplicates")
            page.wait_for_timeout(3000)
            return page.locator(".md-search-result__item a").count() > 0

        assert wait_for(has_results)
        assert "evaluation" in page.inner_html(".md-search-result__list")
    assert chromium.errors == []
