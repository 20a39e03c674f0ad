"""Budget alerts: once for each share of a month, delivered at least once, and by one worker at a time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from tenants import tasks
from tenants.models import NANO, Budget, BudgetAlert, Member
from tenants.notices import alerts, outbound, webhooks

MONTH = "202609"


@pytest.fixture
def posted(monkeypatch):
    """What would have been posted; `posted.problems` are raised first, one for each post."""

    class Posts(list):
        problems: list[Exception] = []

    posts = Posts()
    posts.problems = []

    def post(url, body, headers):
        if posts.problems:
            raise posts.problems.pop(0)
        posts.append((url, body, headers))
        return 204

    monkeypatch.setattr(outbound, "post", post)
    return posts


@pytest.fixture
def alert(cast):
    cast.owner.email, cast.owner.language = "sahip@acme.example", "tr"
    cast.owner.save()
    alerts.check({(str(cast.acme.pk), MONTH): 50 * NANO})
    return BudgetAlert.objects.get()


def shares():
    return list(BudgetAlert.objects.order_by("tenant__slug", "month", "percent").values_list("tenant__slug", "percent"))


def later(alert):
    """As if the time for the next attempt had come."""
    BudgetAlert.objects.filter(pk=alert.pk).update(due_at=timezone.now() - timedelta(seconds=1))


def test_each_share_is_raised_once_at_the_exact_nano_dollar(cast):
    acme, budget = (str(cast.acme.pk), MONTH), 1_000_000_007
    Budget.objects.filter(tenant=cast.acme).update(monthly_nano=budget)
    for spent, percents in [
        (0, []),
        (500_000_003, []),
        (500_000_004, [50]),
        (800_000_005, [50]),
        (800_000_006, [50, 80]),
        (budget - 1, [50, 80]),
        (budget, [50, 80, 100]),
        (2 * budget, [50, 80, 100]),
    ]:
        alerts.check({acme: spent})
        assert shares() == [("acme", percent) for percent in percents], spent
    assert list(BudgetAlert.objects.values_list("spent_nano", flat=True).order_by("percent"))[0] == 500_000_004


def test_one_leap_raises_all_shares_and_each_month_has_its_own(cast):
    alerts.check({(str(cast.acme.pk), MONTH): 100 * NANO, (str(cast.acme.pk), "202610"): 50 * NANO})
    assert shares() == [("acme", 50), ("acme", 80), ("acme", 100), ("acme", 50)]


def test_tenants_do_not_get_each_other_s(cast):
    Budget.objects.filter(tenant=cast.globex).update(monthly_nano=10 * NANO)
    alerts.check({(str(cast.acme.pk), MONTH): 9 * NANO, (str(cast.globex.pk), MONTH): 9 * NANO})
    assert shares() == [("globex", 50), ("globex", 80)]


def test_a_budget_of_zero_or_none_has_no_shares(cast):
    Budget.objects.filter(tenant=cast.acme).update(monthly_nano=0)
    Budget.objects.filter(tenant=cast.globex).delete()
    alerts.check({(str(cast.acme.pk), MONTH): 5, (str(cast.globex.pk), MONTH): 5})
    assert shares() == []


def test_a_budget_that_changes_has_shares_of_its_own(cast):
    acme = (str(cast.acme.pk), MONTH)
    alerts.check({acme: 60 * NANO})
    Budget.objects.filter(tenant=cast.acme).update(monthly_nano=1000 * NANO)
    alerts.check({acme: 61 * NANO})
    Budget.objects.filter(tenant=cast.acme).update(monthly_nano=70 * NANO)
    alerts.check({acme: 62 * NANO})
    assert shares() == [("acme", 50), ("acme", 50), ("acme", 80)]


def test_it_costs_one_query_until_a_share_is_reached(cast, django_assert_num_queries):
    both = {(str(cast.acme.pk), MONTH): NANO, (str(cast.globex.pk), MONTH): NANO}
    with django_assert_num_queries(1):
        alerts.check(both)
    with django_assert_num_queries(0):
        alerts.check({})
    alerts.check({(str(cast.acme.pk), MONTH): 50 * NANO})
    with django_assert_num_queries(2):
        alerts.check({(str(cast.acme.pk), MONTH): 51 * NANO})


def test_owners_are_mailed_in_their_language(cast, alert, posted):
    second = cast.developer
    Member.objects.filter(tenant=cast.acme, user=second).update(role="owner")
    second.email, second.language = "owner@acme.example", "en"
    second.save()
    cast.engineer.email = "engineer@acme.example"
    cast.engineer.save()
    cast.acme.name = "Acme\r\nBcc: all@example.com"
    cast.acme.save()
    assert alerts.deliver(alert.pk)
    turkish, english = sorted(mail.outbox, key=lambda each: each.to, reverse=True)
    assert (turkish.to, english.to) == (["sahip@acme.example"], ["owner@acme.example"])
    assert english.subject == "Acme Bcc: all@example.com: 50% of the month's budget is spent"
    assert english.body.startswith("In 2026-09 Acme Bcc: all@example.com has spent $50.00 of its budget of $100.00.\n")
    assert "$50,00" in turkish.body
    assert "$100,00" in turkish.body


def test_a_post_is_signed_as_standard_webhooks_says(cast, alert, posted):
    _, text = webhooks.set_(cast.acme, "https://example.com/hooks", cast.owner)
    assert alerts.deliver(alert.pk)
    [(url, body, headers)] = posted
    assert url == "https://example.com/hooks"
    assert headers["webhook-id"] == f"msg_alert_{alert.pk}"
    secret = base64.b64decode(text.removeprefix("whsec_"))  # as a receiver does it
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}".encode()
    digest = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"
    assert abs(int(headers["webhook-timestamp"]) - timezone.now().timestamp()) < 5
    told = json.loads(body)
    assert told["type"] == "budget.alert"
    assert told["data"] == {
        "tenant": "acme",
        "month": "2026-09",
        "percent": 50,
        "spent_usd": "50.000000000",
        "budget_usd": "100.000000000",
    }


def test_delivered_is_delivered_once(cast, alert, posted):
    webhooks.set_(cast.acme, "https://example.com/hooks", cast.owner)
    assert alerts.deliver(alert.pk)
    assert not alerts.deliver(alert.pk)
    later(alert)
    BudgetAlert.objects.filter(pk=alert.pk).update(due_at=None)
    assert not alerts.deliver(alert.pk)
    alert.refresh_from_db()
    assert (len(mail.outbox), len(posted)) == (1, 1)
    assert alert.mailed_at
    assert alert.posted_at
    assert (alert.attempts, alert.due_at, alert.problem) == (1, None, "")
    assert alerts.due() == []


def test_what_failed_is_tried_again_later_and_what_went_well_is_not(cast, alert, posted):
    webhooks.set_(cast.acme, "https://example.com/hooks", cast.owner)
    posted.problems = [outbound.Failed("it answered 500"), outbound.BadAddress("private", "inside")]
    before = timezone.now()
    assert alerts.deliver(alert.pk)
    alert.refresh_from_db()
    assert (alert.attempts, alert.problem, alert.posted_at) == (1, "Webhook: it answered 500", None)
    assert alert.due_at >= before + timedelta(minutes=2)
    assert alerts.due() == []
    assert not alerts.deliver(alert.pk)
    later(alert)
    assert alerts.due() == [alert.pk]
    assert alerts.deliver(alert.pk)
    alert.refresh_from_db()
    assert alert.due_at >= before + timedelta(minutes=4)
    later(alert)
    assert alerts.deliver(alert.pk)
    alert.refresh_from_db()
    assert (alert.attempts, alert.problem, alert.due_at) == (3, "", None)
    assert (len(mail.outbox), len(posted)) == (1, 1)


def test_a_mail_server_that_is_away_stops_no_webhook(cast, alert, posted, settings):
    webhooks.set_(cast.acme, "https://example.com/hooks", cast.owner)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", 1, False
    assert alerts.deliver(alert.pk)
    alert.refresh_from_db()
    assert alert.problem.startswith("E-mail: ")
    assert (alert.mailed_at, len(posted)) == (None, 1)
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    later(alert)
    assert alerts.deliver(alert.pk)
    alert.refresh_from_db()
    assert (bool(alert.mailed_at), alert.due_at, len(posted)) == (True, None, 1)


def test_it_is_given_up_after_many_attempts_and_says_why(cast, alert, posted):
    webhooks.set_(cast.acme, "https://example.com/hooks", cast.owner)
    posted.problems = [outbound.Failed("it answered 410")] * 50
    for _ in range(alerts.ATTEMPTS):
        later(alert)
        assert alerts.deliver(alert.pk)
    alert.refresh_from_db()
    assert (alert.attempts, alert.due_at, alert.problem) == (alerts.ATTEMPTS, None, "Webhook: it answered 410")


def test_two_workers_at_once_send_once(cast, alert, posted, monkeypatch):
    webhooks.set_(cast.acme, "https://example.com/hooks", cast.owner)
    first = []
    real = alerts._mail

    def meanwhile(row):  # the second worker comes while the first is sending
        first.append(alerts.deliver(alert.pk))
        return real(row)

    monkeypatch.setattr(alerts, "_mail", meanwhile)
    assert alerts.deliver(alert.pk)
    assert first == [False]
    assert (len(mail.outbox), len(posted)) == (1, 1)


def test_a_worker_that_read_before_another_claimed_does_nothing(cast, alert, posted, monkeypatch):
    quicker, pause = [], alerts.FIRST_PAUSE

    class Between:  # this worker's reading and its claim
        def __mul__(self, factor):
            monkeypatch.setattr(alerts, "FIRST_PAUSE", pause)
            quicker.append(alerts.deliver(alert.pk))
            return pause * factor

    monkeypatch.setattr(alerts, "FIRST_PAUSE", Between())
    assert alerts.deliver(alert.pk) is False
    assert (quicker, len(mail.outbox)) == ([True], 1)


def test_without_webhook_or_address_there_is_nothing_to_do(cast, alert, posted):
    cast.owner.email = ""
    cast.owner.save()
    assert alerts.deliver(alert.pk)
    alert.refresh_from_db()
    assert (alert.due_at, alert.mailed_at, alert.posted_at, mail.outbox) == (None, None, None, [])


def test_the_tasks_run_twice_without_harm_and_take_the_tenant_from_the_row(cast, alert, posted, monkeypatch):
    alerts.check({(str(cast.globex.pk), MONTH): 50 * NANO})
    webhooks.set_(cast.globex, "https://globex.example/hooks", cast.outsider)
    sent = []
    monkeypatch.setattr(tasks.deliver_alert, "apply_async", lambda args, expires: sent.append((args, expires)))
    assert tasks.deliver_alerts() == tasks.deliver_alerts() == 2
    assert len(sent) == 4
    assert [tasks.deliver_alert(*args) for args, _ in sent] == [True, True, False, False]
    assert [url for url, *_ in posted] == ["https://globex.example/hooks"]
    assert [each.to for each in mail.outbox] == [["sahip@acme.example"]]
    assert tasks.deliver_alert(10**9) is False
    assert tasks.deliver_alerts() == 0
    assert tasks.forget_replies() == tasks.forget_replies() == 0
