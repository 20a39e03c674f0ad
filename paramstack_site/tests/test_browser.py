"""The console in a real browser: no error under the strict CSP, keys decide, nothing scrolls sideways."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from paramstack_site.tests import server
from paramstack_site.tests.test_pages import DETAILS, PAGES, address

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SCROLLS = "document.documentElement.scrollWidth > document.documentElement.clientWidth + 1"


@pytest.fixture(scope="session")
def site(django_db_setup, _redis_address, tmp_path_factory):
    with server.running(_redis_address, tmp_path_factory.mktemp("server") / "server.log") as address:
        yield address


@pytest.fixture
def page(site, redis_url, furnished):
    """A tab of Chromium at a desk's width; what its console complains about is in `page.complaints`.

    The data is made before: while playwright's loop runs in this thread, Django refuses to query in it.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab: Any = browser.new_page(viewport={"width": 1440, "height": 900}, base_url=site)
        tab.complaints = []
        tab.on("console", lambda m: tab.complaints.append(m.text) if m.type in {"error", "warning"} else None)
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        yield tab
        browser.close()


def log_in(page, name):
    page.goto("/login/")
    page.fill("#username", name)
    page.fill("#password", "parola-1234")
    page.click("main button.pri")


@pytest.mark.parametrize("width", [1440, 390])
def test_no_page_complains_or_scrolls_sideways(page, furnished, width):
    page.set_viewport_size({"width": width, "height": 900})
    log_in(page, "owner")
    for name in (*PAGES, *DETAILS):
        page.goto(address(name, furnished))
        assert not page.evaluate(SCROLLS), name
        assert not page.complaints, name


def test_the_curve_survives_its_polls(page, furnished):
    log_in(page, "owner")
    page.goto(address("run", furnished))
    page.locator("#plot-loss svg").first.wait_for()
    page.evaluate("document.querySelector('#plot-loss').dataset.kept = 'yes'")
    page.click("#curve-table summary")
    with page.expect_response(lambda response: response.request.headers.get("hx-request") == "true"):
        pass
    page.wait_for_timeout(300)
    assert page.evaluate("document.querySelector('#plot-loss').dataset.kept") == "yes"
    assert page.evaluate("document.querySelector('#curve-table').open")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_a_reviewer_decides_and_takes_back_with_keys(page, furnished):
    log_in(page, "reviewer")
    page.goto(address("review", furnished))
    done = page.locator(".rv-prog strong")
    before = done.inner_text()
    page.keyboard.press("?")
    page.keyboard.press("a")  # the list of keys is open: nothing is decided
    page.keyboard.press("Escape")
    assert done.inner_text() == before
    page.keyboard.press("a")
    page.locator("#empty").wait_for()
    page.keyboard.press("z")
    page.locator(".votes").wait_for()
    assert done.inner_text() == before
