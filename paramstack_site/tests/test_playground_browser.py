"""The playground in a real browser: an answer streams through the gateway, is stopped, refused, booked, found."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.utils import timezone

from inference.models import Replica
from paramstack_site.tests.test_browser import log_in, page, site
from tenants.ledger.writer import Writer
from tenants.models import APIKey, Quota
from tenants.tests import usage

__all__ = ["page", "site"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
TOKENS = ["Mer", "haba", " dün", "ya"] * 25


class Streaming(BaseHTTPRequestHandler):
    """An engine that answers in TOKENS, one each `pause` seconds, as vLLM does."""

    pause = 0.0

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        usage_ = {"prompt_tokens": 7, "completion_tokens": len(TOKENS), "total_tokens": 7 + len(TOKENS)}
        said = [{"index": 0, "finish_reason": None, "delta": {"content": token}} for token in TOKENS]
        try:
            for choice in said:
                time.sleep(self.pause)
                self.say(head | {"choices": [choice]})
            self.say(head | {"choices": [], "usage": usage_})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:  # the gateway hung up
            pass

    def say(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: %s\n\n" % json.dumps(event).encode())
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def engine(furnished, cast, redis_url, monkeypatch):
    """An engine, a price, a ledger that is written; all of it before the browser is there."""
    monkeypatch.setattr(Streaming, "pause", 0.0)
    # Fresh counters count as used up, and a question is two calls at once: 60 a minute would refuse the second.
    Quota.objects.filter(tenant=cast.acme, key=None).update(requests_per_minute=60_000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Streaming)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    Replica.objects.update(url=address, state=Replica.State.WELL, seen_at=timezone.now())
    usage.price()
    usage.price("adapter")
    writer = Writer("test")
    writer.drain()
    running = threading.Thread(target=writer.run, daemon=True)
    running.start()
    yield Streaming
    writer.stop()
    running.join(10)
    server.shutdown()
    server.server_close()


@pytest.fixture
def narrow(engine, cast):
    """Acme may make one call a minute."""
    Quota.objects.filter(tenant=cast.acme, key=None).update(requests_per_minute=1)


def test_an_answer_streams_is_booked_and_found_again(engine, page, furnished):
    log_in(page, "engineer")
    page.goto("/t/acme/playground/")
    page.click("#send")
    page.locator("#state-0.done").wait_for()
    page.locator("#state-1.done").wait_for()
    assert page.inner_text("#answer-0") == "".join(TOKENS)
    facts = page.locator("#facts-1")
    facts.get_by_text("$0,").wait_for()  # booked
    told = facts.inner_text()
    assert "7 giriş, 100 çıkış" in told
    assert "acme.destek-v1" in told
    assert "ps_live_" not in page.evaluate("JSON.stringify([sessionStorage, localStorage])")
    assert "_key_" not in page.content()
    assert "ps_live_" in page.inner_text("#key-note")
    facts.locator("a").click()
    page.locator("h1", has_text="Çağrı").wait_for()
    assert "acme.destek-v1" in page.inner_text("main")
    assert not page.complaints


def test_a_stream_that_is_stopped_ends_and_the_page_goes_on(engine, page, furnished):
    engine.pause = 0.1
    log_in(page, "engineer")
    page.goto("/t/acme/playground/")
    page.click("#send")
    page.locator("#answer-0", has_text="Merhaba").wait_for()
    page.click("#stop")
    page.locator("#state-0.wait").wait_for()
    length = len(page.inner_text("#answer-0"))
    page.wait_for_timeout(500)
    assert len(page.inner_text("#answer-0")) == length < len("".join(TOKENS))
    assert not page.locator("#stop").is_visible()
    engine.pause = 0.0
    page.click("#send")
    page.locator("#state-0.done").wait_for()
    assert not page.complaints


def test_a_refusal_says_why_with_a_link(engine, narrow, page, furnished):
    log_in(page, "engineer")
    page.goto("/t/acme/playground/")
    page.click("#send")  # fresh counters count as used up
    page.locator("#state-0.failed").wait_for()
    page.locator("#problem-0 a").click()
    page.locator("h1", has_text="Neden reddedildim?").wait_for()


def test_a_key_that_was_revoked_meanwhile_is_replaced(engine, page, furnished):
    log_in(page, "engineer")
    page.goto("/t/acme/playground/")
    page.click("#send")
    page.locator("#state-0.done").wait_for()
    first = page.inner_text("#key-note")
    page.evaluate(
        """async () => {
        const token = document.querySelector('#ask-form [name=csrfmiddlewaretoken]').value;
        const id = document.querySelector('#key-note').textContent.match(/ps_live_([a-z2-7]{12})/)[1];
        await fetch(`/t/acme/settings/keys/${id}/revoke/`, { method: 'POST', headers: { 'X-CSRFToken': token } });
        }"""
    )
    page.click("#send")
    page.locator("#state-0.done").wait_for()
    page.locator("#state-1.done").wait_for()
    assert page.inner_text("#key-note") != first


def test_somebody_who_may_not_call_has_no_playground(page, furnished):
    log_in(page, "auditor")
    assert page.goto("/t/acme/playground/").status == 403


def test_a_live_page_keeps_the_place_of_its_reader(page, furnished):
    """What the poll swaps keeps focus, open tables and the place that they were scrolled to."""
    page.set_viewport_size({"width": 800, "height": 700})
    log_in(page, "owner")
    page.goto("/t/acme/traffic/?span=1h")
    page.locator("#plot-calls svg").first.wait_for()
    page.click("#calls-table summary")
    page.evaluate("window.scrollTo(0, 400)")
    with page.expect_response(lambda response: response.request.headers.get("hx-request") == "true", timeout=15_000):
        pass
    page.wait_for_timeout(300)
    assert page.evaluate("window.scrollY") == 400
    assert page.evaluate("document.querySelector('#calls-table').open")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.locator("#plot-calls svg").count() > 0
    assert not page.complaints


def test_the_key_is_in_no_page_and_no_cookie(engine, page, furnished):
    log_in(page, "engineer")
    page.goto("/t/acme/playground/")
    with page.expect_response("**/playground/key/") as answer:
        page.click("#send")
    secret = answer.value.json()["key"].split("_")[3]
    page.locator("#state-0.done").wait_for()
    assert secret not in page.content()
    assert secret not in json.dumps(page.context.cookies())
    page.goto("/t/acme/settings/")
    assert secret not in page.content()


def test_one_key_serves_both_panes_and_the_next_question(engine, page, furnished, cast):
    asked = []
    log_in(page, "engineer")
    page.goto("/t/acme/playground/")
    page.on("request", lambda request: asked.append(request.url) if "playground/key" in request.url else None)
    for _ in range(2):
        page.click("#send")
        page.locator("#state-0.done").wait_for()
        page.locator("#state-1.done").wait_for()
    assert len(asked) == 1
    page.reload()
    page.click("#send")
    page.locator("#state-0.done").wait_for()
    found = page.evaluate("document.querySelector('#key-note').textContent")
    assert found.count("ps_live_") == 1
    counted: list[int] = []
    counting = threading.Thread(target=lambda: counted.append(APIKey.objects.filter(playground=True).count()))
    counting.start()  # in a thread of its own: this one has playwright's loop
    counting.join()
    assert counted == [1]
