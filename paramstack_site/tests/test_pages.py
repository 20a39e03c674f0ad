"""Pages: each one answers in both languages, a stranger sees nothing, a role can do no more than it may."""

from __future__ import annotations

import gettext
import re
from typing import Any

import pytest
from babel.messages.pofile import read_po
from django.conf import settings as configured
from django.urls import reverse

from inference import artifacts
from inference.models import Adapter, Residence
from paramstack_site.tests.furniture import SECRET_JUDGE
from tenants.models import UsageEvent
from training import review
from training.models import Job, PreferencePair

pytestmark = pytest.mark.journey

PAGES: tuple[str, ...] = (
    "overview",
    "datasets",
    "rlaif_runs",
    "pairs",
    "exports",
    "review",
    "runs",
    "adapters",
    "rollouts",
)
PAGES += (
    "status",
    "traffic",
    "calls",
    "feedback",
    "playground",
    "usage",
    "settings",
    "key_create",
    "limits",
    "members",
    "tenant",
    "audit",
    "policy",
    "refusals",
)
DETAILS = ("dataset", "rlaif_run", "pair", "run", "adapter", "rollout", "receipt", "key", "call")


def address(name, furnished):
    return reverse(name, args=["acme", furnished[name]] if name in furnished else ["acme"])


def every_page(furnished):
    return [address(name, furnished) for name in (*PAGES, *DETAILS)]


@pytest.mark.parametrize("language", ["tr", "en"])
def test_every_page_answers_in_both_languages(client, cast, furnished, language):
    cast.owner.language = language
    cast.owner.save()
    client.force_login(cast.owner)
    for page in every_page(furnished):
        answer = client.get(page)
        assert answer.status_code == 200, page
        assert f'<html lang="{language}"' in answer.text, page


def test_every_page_of_an_empty_tenant_answers(client, cast, settings):
    settings.ENGINE_URL = "http://127.0.0.1:1"
    client.force_login(cast.outsider)
    for name in PAGES:
        assert client.get(reverse(name, args=["globex"])).status_code == 200, name


def test_a_stranger_finds_nothing(client, cast, furnished):
    client.force_login(cast.outsider)
    for page in every_page(furnished):
        assert client.get(page).status_code == 404, page


def test_rows_of_another_tenant_are_not_found_under_ones_own(client, cast, furnished):
    client.force_login(cast.outsider)
    for name in DETAILS:
        assert client.get(reverse(name, args=["globex", furnished[name]])).status_code == 404, name


def test_nobody_comes_in_without_login(client, furnished):
    for page in every_page(furnished):
        answer = client.get(page)
        assert answer.status_code == 302
        assert answer.url.startswith("/login/?next=")


def test_a_page_asks_the_database_a_bounded_number_of_times(client, cast, furnished, django_assert_max_num_queries):
    client.force_login(cast.owner)
    for page in every_page(furnished):
        with django_assert_max_num_queries(24):
            client.get(page)


def test_a_fragment_is_a_fragment_and_stops_polling_with_its_job(client, cast, furnished):
    client.force_login(cast.owner)
    page = address("run", furnished)
    running = client.get(page, headers={"HX-Request": "true"})
    assert running.status_code == 200
    assert "<html" not in running.text
    Job.objects.update(state="done")
    assert client.get(page, headers={"HX-Request": "true"}).status_code == 286


def test_no_page_carries_inline_script_or_style(client, cast, furnished):
    client.force_login(cast.owner)
    for page in every_page(furnished):
        answer = client.get(page)
        assert "unsafe-inline" not in answer.headers["Content-Security-Policy"]
        assert not re.search(r'\sstyle="|\son[a-z]+="|<script(?![^>]*(src=|application/json))', answer.text), page


def test_reviewing_is_blind(client, cast, furnished):
    """Neither source nor verdict is in the page before the decision; both are afterwards."""
    client.force_login(cast.reviewer)
    for page in (address("review", furnished), address("pair", furnished)):
        text = client.get(page).text
        assert "samples.jsonl" not in text
        assert SECRET_JUDGE not in text
    client.post(address("review", furnished), {"pair": furnished["pair"], "side": "left"})
    assert SECRET_JUDGE in client.get(address("pair", furnished)).text


def test_a_decision_by_plain_form_shows_the_next_pair_and_can_be_taken_back(client, cast, furnished):
    client.force_login(cast.reviewer)
    pair = PreferencePair.objects.get(pk=furnished["pair"])
    seen = review.question(pair, cast.reviewer)
    answer = client.post(
        address("review", furnished), {"pair": pair.pk, "side": "right", "seconds": "4.2"}, follow=True
    )
    assert answer.status_code == 200
    pair.refresh_from_db()
    assert pair.decision == seen.choice("right")
    assert pair.reviews.get().seconds == 4.2
    client.post(reverse("review_undo", args=["acme"]))
    pair.refresh_from_db()
    assert pair.decision == ""


WRITES = [
    ("dataset_sample", ()), ("freeze", ("rlaif_run",)), ("adapter_load", ("adapter",)), ("alias_create", ()),
    ("alias_fallback", ()),
    ("rollout_start", ()), ("rollout_stop", ("rollout",)), ("rollout_promote", ("rollout",)), ("key_create", ()),
    ("rollout_weight", ("rollout",)), ("adapter_unload", ("adapter",)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ids"), WRITES)
def test_an_auditor_changes_nothing(client, cast, furnished, name, ids):
    client.force_login(cast.auditor)
    address = reverse(name, args=["acme", *(furnished[one] for one in ids)])
    assert client.post(address, {"name": "x"}).status_code == 403
    assert client.get(address).status_code in {403, 405}


@pytest.mark.parametrize("name", ["datasets", "rlaif_runs", "runs", "policy"])
def test_an_auditor_starts_nothing_on_a_page_that_also_reads(client, cast, furnished, name):
    client.force_login(cast.auditor)
    assert client.post(reverse(name, args=["acme"]), {}).status_code == 403


def test_a_key_is_shown_once(client, cast, furnished):
    client.force_login(cast.developer)
    answer = client.post(reverse("key_create", args=["acme"]), {"name": "mobil", "scopes": ["inference"]})
    (secret,) = set(re.findall(r"ps_live_[a-z2-7]{12}_[a-z2-7]{32}_[0-9a-f]{8}", answer.text))
    assert "no-store" in answer.headers["Cache-Control"]
    assert secret not in client.get(reverse("settings", args=["acme"])).text


def test_a_broken_file_is_reported_row_by_row_and_stores_nothing(client, cast, furnished, tmp_path):
    client.force_login(cast.engineer)
    path = tmp_path / "istemler.jsonl"
    path.write_text('{"prompt": "İyi satır"}\n{"prompt": 3}\n', encoding="utf-8")
    with path.open("rb") as file:
        answer = client.post(reverse("datasets", args=["acme"]), {"name": "yeni", "file": file})
    assert answer.status_code == 422
    assert "metin olmalı" in answer.text
    with path.open("rb") as file:
        kept = client.post(reverse("datasets", args=["acme"]), {"name": "yeni", "file": file, "keep_good": "on"})
    assert kept.status_code == 302


def test_verifying_says_what_holds_and_which_file_does_not(client, cast, furnished):
    client.force_login(cast.auditor)
    page = reverse("adapter_verify", args=["acme", furnished["adapter"]])
    assert "Kanıtlandı" in client.post(page).text
    adapter = Adapter.objects.get(pk=furnished["adapter"])
    (artifacts.store().local(adapter.digest) / "adapter_model.safetensors").write_bytes(b"other weights")
    broken = client.post(page).text
    assert "Kanıtlanamadı" in broken
    assert "adapter_model.safetensors" in broken


def test_a_receipt_page_verifies_and_a_changed_row_does_not(client, cast, furnished):
    client.force_login(cast.auditor)
    page = address("receipt", furnished)
    assert "aynen aşağıdaki gibi" in client.get(page).text
    UsageEvent.objects.filter(request_id=furnished["receipt"]).update(cost_nano=1)
    assert "Makbuz tutmuyor" in client.get(page).text


def test_theme_and_language_are_form_posts(client, cast):
    assert 'lang="tr"' in client.get("/login/").text
    client.post("/preferences/", {"language": "en", "theme": "dark", "next": "/login/"})
    text = client.get("/login/").text
    assert 'lang="en"' in text
    assert 'data-theme="dark"' in text
    assert client.post("/preferences/", {"theme": "dark", "next": "https://evil.example/"}).url == "/"


def test_the_start_page_goes_to_the_only_tenant_or_offers_the_choice(client, cast):
    client.force_login(cast.engineer)
    assert client.get("/").url == "/t/acme/"
    client.force_login(cast.operator)
    answer = client.get("/")
    assert "Globex" in answer.text


def test_five_wrong_passwords_pause_the_login(client, cast):
    for _ in range(5):
        answer = client.post("/login/", {"username": "owner", "password": "yanlis"})
    assert answer.status_code == 429
    assert "15 dakika" in answer.text


def test_an_error_page_names_its_number_and_nothing_else(client, cast, monkeypatch):
    client.raise_request_exception = False
    client.force_login(cast.owner)
    monkeypatch.setattr("paramstack_site.overview.read", lambda tenant: 1 / 0)
    answer = client.get(reverse("overview", args=["acme"]))
    assert answer.status_code == 500
    assert re.search(r"<code[^>]*>[0-9a-f]{8}</code>", answer.text)


def test_the_compiled_catalog_is_the_written_one():
    folder = configured.ROOT / "locale/tr/LC_MESSAGES"
    with (folder / "django.po").open("rb") as po, (folder / "django.mo").open("rb") as mo:
        written, compiled = read_po(po, locale="tr"), gettext.GNUTranslations(mo)
    for message in written:
        match message.id:
            case (one, many):
                assert compiled.ngettext(one, many, 5) == message.string[1]  # type: ignore[index]
            case str(text) if message.context:
                assert compiled.pgettext(message.context, text) == message.string
            case str(text) if text:
                assert compiled.gettext(text) == message.string


def test_a_quote_is_given_before_anything_is_asked(client, cast, furnished, settings):
    settings.ANTHROPIC_API_KEY = "sk-ant-api03-test"
    client.force_login(cast.engineer)
    choices = {"dataset": furnished["dataset"], "num_responses": 4, "cap": "2"}
    page = reverse("rlaif_runs", args=["acme"])
    free = client.get(page, {**choices, "generators": ["written"], "judges": ["rules"]}, headers={"HX-Request": "true"})
    assert "ücretsiz" in free.text
    paid = client.get(page, {**choices, "generators": ["claude"], "judges": ["claude"]}, headers={"HX-Request": "true"})
    assert re.search(r"Claude’a \d+ çağrı, yaklaşık \$0,\d+", paid.text)


def test_anything_in_a_query_is_answered_without_an_error(client, cast, furnished):
    client.force_login(cast.reviewer)
    page = reverse("review", args=["acme"])
    assert client.get(page, {"pair": "abc"}).status_code == 200
    assert client.get(page, {"after": "abc"}).status_code == 200
    assert client.post(page, {"pair": "abc", "side": "left"}).status_code == 404


def test_a_job_page_returns_only_to_our_own_pages(client, cast, furnished):
    client.force_login(cast.engineer)
    job = Job.objects.filter(tenant=cast.acme).latest("created_at")
    for verb in ("job_cancel", "job_retry"):
        for target in ("foo bar", "https://elsewhere.example/", ""):
            answer = client.post(reverse(verb, args=["acme", job.pk]), {"next": target})
            assert answer.status_code == 302
            assert "elsewhere" not in answer.headers["Location"]


def test_the_source_filter_tells_nothing_of_a_waiting_pair(client, cast, furnished):
    client.force_login(cast.reviewer)
    page = reverse("pairs", args=["acme"])
    for source in ("written", "local", "claude"):
        shown = client.get(page, {"state": "waiting", "source": source}).context["page"]
        assert shown.paginator.count == 0


def test_an_adapter_s_page_says_how_far_each_engine_is_and_asks_again_while_it_moves(client, cast, furnished):
    client.force_login(cast.engineer)
    page = reverse("adapter", args=["acme", furnished["adapter"]])
    living = Residence.objects.filter(adapter=furnished["adapter"])

    def engines() -> Any:
        """What the page asks for again."""
        part = client.get(page, headers={"HX-Request": "true"}).text
        assert part.startswith("<section")
        assert part.strip() in client.get(page).text
        return part

    assert "Yanıtlıyor" in engines()
    assert "hx-trigger" not in engines()
    living.update(state="loading")
    assert "Yükleniyor" in engines()
    assert "hx-trigger" in engines()
    living.update(state="failed", note="max_lora_rank <8>")
    assert "max_lora_rank &lt;8&gt;" in engines()
    assert "hx-trigger" not in engines()
    living.delete()
    assert "hx-trigger" in engines()  # an agent will take it
    Adapter.objects.filter(pk=furnished["adapter"]).update(state="registered")
    assert "hx-trigger" not in engines()
