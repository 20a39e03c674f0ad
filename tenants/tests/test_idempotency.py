"""A POST that is sent twice is done once, also when it dies in between; what it answered rests encrypted."""

import threading
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.utils import timezone
from rest_framework.response import Response

from tenants import keys
from tenants.models import APIKey, AuditEntry, IdempotentReply, Tenant
from tenants.rest import idempotency
from tenants.tests.api_client import ACME, by_key, client, is_problem

KEYS = f"{ACME}keys/"


def post(caller, body, key="k1", address=KEYS):
    return caller.post(address, body, HTTP_IDEMPOTENCY_KEY=key)


@pytest.mark.django_db
def test_the_same_again_is_the_same_answer_with_the_text_that_is_shown_once(cast):
    caller = client(cast.owner)
    first, second = post(caller, {"name": "x"}), post(caller, {"name": "x"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert keys.authenticate(second.json()["key"])
    assert APIKey.objects.count() == 1
    kept = IdempotentReply.objects.get()
    assert first.json()["key"].encode() not in bytes(kept.body)
    assert first.json()["id"].encode() not in bytes(kept.body)


@pytest.mark.django_db
def test_another_request_under_the_same_key_is_refused(cast):
    caller = client(cast.owner)
    key, _ = keys.create(cast.acme, "k")
    post(caller, {"name": "x"})
    assert is_problem(post(caller, {"name": "y"}), 422)["type"] == "urn:paramstack:problem:key-reused"
    is_problem(post(caller, {"name": "x"}, address=f"{KEYS}{key.pk}/rotate/"), 422)
    assert APIKey.objects.count() == 2


@pytest.mark.django_db
def test_keys_are_each_callers_own(cast):
    callers = [client(cast.owner), client(cast.engineer), by_key(cast.acme, "manage"), by_key(cast.acme, "manage")]
    made = {post(caller, {"name": "x"}).json()["id"] for caller in callers}
    assert len(made) == 4
    operator = client(cast.operator)
    ours = post(operator, {"name": "x"}).json()["id"]
    assert post(operator, {"name": "x"}, address="/api/v1/t/globex/keys/").json()["id"] != ours


@pytest.mark.django_db
def test_the_platforms_own_posts_are_done_once_too(cast):
    for _ in range(2):
        assert post(client(cast.operator), {"name": "Yeni"}, address="/api/v1/tenants/").status_code == 201
    assert Tenant.objects.count() == 3


@pytest.mark.django_db
def test_what_was_refused_may_be_tried_again(cast):
    caller = client(cast.owner)
    is_problem(post(caller, {"name": ""}), 400)
    is_problem(post(client(cast.auditor), {"name": "x"}), 403)
    assert not IdempotentReply.objects.exists()
    assert post(caller, {"name": "x"}).status_code == 201


@pytest.mark.django_db
def test_what_is_at_work_is_not_begun_again_until_it_must_have_died(cast):
    caller = client(cast.owner)
    post(caller, {"name": "x"})
    IdempotentReply.objects.update(status=None)
    assert is_problem(post(caller, {"name": "x"}), 409)["type"] == "urn:paramstack:problem:still-running"
    IdempotentReply.objects.update(created_at=timezone.now() - idempotency.LONGEST_REQUEST - timedelta(seconds=1))
    assert post(caller, {"name": "x"}).status_code == 201
    assert APIKey.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_process_that_dies_leaves_neither_the_change_nor_an_answer(cast, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(idempotency, "_keep", dies)
    with pytest.raises(KeyboardInterrupt):
        post(client(cast.owner), {"name": "x"})
    assert not APIKey.objects.exists()
    assert not AuditEntry.objects.exists()
    assert not IdempotentReply.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_at_once_are_one(cast):
    """Whoever comes second meets a request at work, or its answer; never a second key."""
    answers = []

    def ask():
        answers.append(post(client(cast.owner), {"name": "x"}).status_code)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert APIKey.objects.count() == 1
    assert set(answers) <= {201, 409}
    assert 201 in answers


@pytest.mark.django_db
def test_a_day_later_it_is_forgotten(cast):
    caller = client(cast.owner)
    post(caller, {"name": "x"})
    post(caller, {"name": "x"}, key="k2")
    IdempotentReply.objects.filter(key="k1").update(created_at=timezone.now() - idempotency.KEPT - timedelta(seconds=1))
    assert idempotency.forget() == 1
    assert post(caller, {"name": "y"}).status_code == 201


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["", "x" * 81, "ş", "a\tb"])
def test_a_key_that_is_none(cast, key):
    is_problem(post(client(cast.owner), {"name": "x"}, key=key), 400)
    assert not APIKey.objects.exists()


@pytest.mark.django_db
def test_files_count_by_what_they_hold(cast):
    def upload(text: str):
        file = SimpleUploadedFile("x.jsonl", text.encode())
        body = {"name": "d", "file": file}
        return client(cast.engineer).post(f"{ACME}datasets/", body, format="multipart", HTTP_IDEMPOTENCY_KEY="k1")

    first, again = upload('{"prompt": "Kota nedir?"}\n'), upload('{"prompt": "Kota nedir?"}\n')
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (201, first.json())
    assert cast.acme.datasets.count() == 1
    is_problem(upload('{"prompt": "Limit nedir?"}\n'), 422)


@pytest.mark.django_db
def test_an_answer_without_a_body_is_kept(cast):
    class Asked:
        method, auth, content_type, body, tenant, user = "POST", None, "application/json", b"", cast.acme, cast.owner

        def get_full_path(self):
            return "/"

    done = [idempotency.once(Asked(), "k", lambda: Response(status=204)) for _ in range(2)]
    assert [(answer.status_code, answer.data) for answer in done] == [(204, None)] * 2
