"""The console in a real Chromium: every page loads without an error, calls nobody else, and works without scripts."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from paramstack_site.tests.test_pages import DETAILS, PAGES, address, furnished  # noqa: F401

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    # Playwright's synchronous interface keeps a loop in this thread, which Django would take for asynchronous code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


def log_in(page: Any, server: str, name: str) -> None:
    page.goto(f"{server}/login/")
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", "parola-1234")
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/t/acme/**")


def test_every_page_loads_without_an_error_and_calls_nobody_else(chromium, live_server, cast, furnished):  # noqa: F811
    page = chromium.new_page(locale="tr-TR")
    heard: list[str] = []
    page.on("console", lambda said: heard.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("requestfailed", lambda gone: heard.append(f"{gone.url} {gone.failure}"))
    asked: set[str] = set()
    page.on("request", lambda sent: asked.add(sent.url))
    log_in(page, live_server.url, "owner")
    for place in [address(name, furnished) for name in (*PAGES, *DETAILS)]:
        answer = page.goto(live_server.url + place, wait_until="load")
        assert answer.status == 200, place
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{place} scrolls sideways"
        assert heard == [], place
    page.close()
    assert {url for url in asked if not url.startswith((live_server.url, "data:", "blob:"))} == set()


def test_login_reading_and_deciding_work_without_scripts(chromium, live_server, cast, furnished):  # noqa: F811
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    log_in(page, live_server.url, "reviewer")
    page.goto(live_server.url + address("review", furnished))
    page.click("button[name=side][value=left]")
    context.close()
    from training.models import PreferencePair

    assert PreferencePair.objects.get(pk=furnished["pair"]).decision in {"a", "b"}
