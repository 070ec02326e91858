"""The site in headless Chromium: wide and narrow, light and dark, search and pictures. `make test-docs` runs it.

The pictures of three pages are written to `build/screenshots/`, for a person to look at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operators.browser import Browser, browser
from website.build import build
from website.pages import ROOT

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif("CYCLES_TEST_SITE" not in os.environ, reason="needs Chromium: run make test-docs"),
]

PAGES = (
    "index.html",
    "tutorial.html",
    "explanations.html",
    "api/client.html",
    "protocol/guards.html",
    "comparison.html",
)
LOOKED_AT = ("index.html", "explanations.html", "api/client.html")
# The search is drawn in the shadow tree of one element.
_SEARCH = "[...document.querySelectorAll('*')].map((part) => part.shadowRoot).find((tree) => tree)"
SCREENSHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    build(folder, work=tmp_path_factory.mktemp("work"))
    return folder


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_its_window_and_loads_nothing_from_elsewhere(
    tab: Browser, site: Path, page: str, width: int
) -> None:
    tab.open((site / page).as_uri(), width=width)
    tab.wait_for("return document.readyState === 'complete'")
    assert tab.run("return document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    console, requests = tab.logs()
    assert [entry["message"] for entry in console if entry["level"] == "SEVERE"] == []
    assert requests
    assert [address for address in requests if not address.startswith(("file:", "data:", "blob:"))] == []
    if page in LOOKED_AT:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        tab.driver.save_screenshot(str(SCREENSHOTS / f"{page.replace('/', '-').removesuffix('.html')}-{width}.png"))


def test_a_table_of_numbers_fits_a_narrow_window(tab: Browser, site: Path) -> None:
    tab.open((site / "media.html").as_uri(), width=400)
    tab.wait_for("return document.readyState === 'complete'")
    box = "document.querySelector('.md-typeset__scrollwrap')"
    assert tab.run(f"return {box}.scrollWidth") <= tab.run(f"return {box}.clientWidth"), "the table scrolls sideways"


@pytest.mark.parametrize("width", [1280, 400])
def test_a_row_of_a_wide_table_keeps_its_name(tab: Browser, site: Path, width: int) -> None:
    tab.open((site / "overspend.html").as_uri(), width=width)
    tab.wait_for("return document.readyState === 'complete'")
    box = (
        "[...document.querySelectorAll('.md-typeset__scrollwrap')].find((box) => box.querySelector('th:nth-child(9)'))"
    )
    left = "box.querySelector('td').getBoundingClientRect().left - box.getBoundingClientRect().left"
    scrolled, left = tab.run(f"const box = {box}; box.scrollLeft = 100; return [box.scrollLeft, {left}]")
    assert (scrolled, left) == (100, 0)


def test_no_line_of_code_is_cut(tab: Browser, site: Path) -> None:
    for page in ("run-under-a-budget.html", "webhooks.html", "tutorial.html"):
        tab.open((site / page).as_uri(), width=690)
        tab.wait_for("return document.readyState === 'complete'")
        cut = "[...document.querySelectorAll('pre > code')].filter((code) => code.scrollWidth > code.clientWidth + 1)"
        assert tab.run(f"return {cut}.map((code) => code.innerText.slice(0, 80))") == [], page


@pytest.mark.parametrize("dark", [False, True])
def test_the_pictures_are_drawn(tab: Browser, site: Path, dark: bool) -> None:
    tab.open((site / "explanations.html").as_uri(), dark=dark)
    widths = tab.wait_for(
        "const all = [...document.querySelectorAll('img[src$=\".svg\"]')];"
        "return all.every((picture) => picture.complete) && all.map((picture) => picture.naturalWidth)"
    )
    assert len(widths) == 3
    assert all(width > 100 for width in widths)


def test_the_search_works_without_a_network(tab: Browser, site: Path) -> None:
    tab.open((site / "index.html").as_uri())
    tab.driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    tab.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    tab.wait_for("return document.querySelector('.md-search__button')").click()
    tab.wait_for(f"return {_SEARCH} && {_SEARCH}.activeElement")
    tab.press("overdraft")
    for page in ("api/errors", "protocol/"):  # the reference and the pages
        tab.wait_for(f"return [...{_SEARCH}.querySelectorAll('a')].some((found) => found.href.includes('{page}'))")


@pytest.mark.parametrize(
    ("question", "pages"),
    [
        ("how do I set a budget", ("run-under-a-budget", "command-line")),
        ("codex", ("run-under-a-budget",)),
        ("claude code", ("run-under-a-budget",)),
        ("stop runaway agent", ("run-under-a-budget",)),
        ("langgraph", ("integrations/langchain",)),
        ("streaming", ("streaming",)),
        ("docker", ("production",)),
        ("what happens when it crashes", ("failures", "recovery")),
        ("per-user budget", ("integrations/fastapi", "services")),
    ],
)
def test_the_search_finds_the_right_page_first(tab: Browser, site: Path, question: str, pages: tuple[str, ...]) -> None:
    tab.open((site / "index.html").as_uri())
    tab.wait_for("return document.querySelector('.md-search__button')").click()
    tab.wait_for(f"return {_SEARCH} && {_SEARCH}.activeElement")
    tab.press(question)
    words = question.replace(" ", "+")
    # The list changes while the words arrive: what counts is the first link once it stays.
    links = f"[...{_SEARCH}.querySelectorAll('a')].map((a) => a.href).filter((a) => a.includes('?h={words}'))"
    wanted = "|".join(page.replace("/", r"\/") for page in pages)
    assert tab.wait_for(f"return /({wanted})(\\/index)?\\.html$/.test(({links}[0] || '').split('?')[0])")
