"""The REST API: a stranger gets 404, a key may do what its scopes say, errors are sentences."""

import io
from typing import Any

import pytest
from rest_framework.test import APIClient

from attestation import statements
from paramstack_site import api
from tenants import keys, rest
from training import datasets
from training.models import Candidate, Export, Job, PreferencePair, RlaifRun

ACME = "/api/v1/t/acme/"


def client_of(user=None, key: str = "") -> APIClient:
    client = APIClient()
    if user:
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    if key:
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    return client


def listings() -> list[str]:
    reads: Any = [route for route in api.ROUTES if "<" not in str(route.pattern)]
    return [str(route.pattern) for route in reads if hasattr(route.callback.cls, "get")]


@pytest.mark.parametrize("address", listings())
def test_every_listing_answers_a_member_and_hides_from_a_stranger(cast, redis_url, address):
    assert client_of(cast.auditor).get(ACME + address).status_code == 200
    assert client_of(cast.outsider).get(ACME + address).status_code == 404
    assert client_of().get(ACME + address).status_code == 401
    assert client_of(cast.operator).get(ACME + address).status_code == 200


@pytest.mark.parametrize("address", listings())
def test_a_key_of_another_tenant_is_a_stranger(cast, redis_url, address):
    _, text = keys.create(cast.globex, "g", scopes=["manage"])
    assert client_of(key=text).get(ACME + address).status_code == 404


def test_scopes_bound_what_a_key_may_do(cast, redis_url):
    _, inference_only = keys.create(cast.acme, "i", scopes=["inference"])
    _, usage = keys.create(cast.acme, "u", scopes=["usage"])
    _, manage = keys.create(cast.acme, "m", scopes=["manage"])
    assert client_of(key=inference_only).get(f"{ACME}usage/").status_code == 404
    assert client_of(key=usage).get(f"{ACME}usage/").status_code == 200
    assert client_of(key=usage).post(f"{ACME}keys/", {"name": "x"}).status_code == 403
    made = client_of(key=manage).post(f"{ACME}keys/", {"name": "x"}, format="json")
    assert made.status_code == 201
    assert keys.authenticate(made.json()["key"])


def test_a_revoked_key_is_refused_at_once(cast, redis_url):
    key, text = keys.create(cast.acme, "k")
    assert client_of(cast.developer).delete(f"{ACME}keys/{key.pk}/").status_code == 204
    assert client_of(key=text).get(f"{ACME}usage/").status_code == 401


def test_a_developer_cannot_make_a_key_that_manages(cast, redis_url):
    wanted = {"name": "x", "scopes": ["manage"]}
    assert client_of(cast.developer).post(f"{ACME}keys/", wanted, format="json").status_code == 403


def test_bad_rows_are_named_and_nothing_is_stored(cast, redis_url):
    file = io.BytesIO(b'{"prompt": "Kota nedir?"}\n{"prompt": \n{"soru": "yok"}\n')
    file.name = "x.jsonl"
    answer = client_of(cast.engineer).post(f"{ACME}datasets/", {"name": "x", "file": file}, format="multipart")
    assert answer.status_code == 422
    assert [row["line"] for row in answer.json()["rows"]] == [2, 3]
    assert cast.acme.datasets.count() == 0


def test_good_rows_are_kept_when_asked_for(cast, redis_url):
    file = io.BytesIO(b'{"prompt": "Kota nedir?"}\n{"prompt": \n')
    file.name = "x.jsonl"
    wanted = {"name": "x", "file": file, "keep_good": "true"}
    answer = client_of(cast.engineer).post(f"{ACME}datasets/", wanted, format="multipart")
    assert answer.status_code == 201
    assert cast.acme.datasets.get().prompts.count() == 1


@pytest.fixture
def pair(cast) -> PreferencePair:
    dataset = datasets.create(cast.acme, "x", ["Kota nedir?"], cast.engineer)
    job = Job.objects.create(tenant=cast.acme, kind="rlaif")
    run = RlaifRun.objects.create(tenant=cast.acme, name="rlaif-0001", dataset=dataset, job=job, config={})
    prompt = dataset.prompts.get()
    a, b = (
        Candidate.objects.create(run=run, prompt=prompt, number=n, text=t, source="written", generator="samples")
        for n, t in ((1, "iyi"), (2, "kötü"))
    )
    return PreferencePair.objects.create(tenant=cast.acme, run=run, prompt=prompt, a=a, b=b, proposal="a")


def test_a_pair_is_blind_until_it_is_decided(cast, redis_url, pair):
    client = client_of(cast.reviewer)
    before = client.get(f"{ACME}pairs/?state=waiting").json()["results"][0]
    assert before["revealed"] is None
    assert "proposal" not in before
    after = client.post(f"{ACME}pairs/{pair.pk}/decision/", {"choice": "b"}, format="json")
    assert after.status_code == 200
    assert after.json()["decision"] == "b"
    assert after.json()["revealed"]["proposal"] == "a"


def test_an_auditor_and_a_key_cannot_decide(cast, redis_url, pair):
    _, manage = keys.create(cast.acme, "m", scopes=["manage"])
    for client in (client_of(cast.auditor), client_of(key=manage)):
        answer = client.post(f"{ACME}pairs/{pair.pk}/decision/", {"choice": "b"}, format="json")
        assert answer.status_code == 403
    assert not pair.reviews.exists()


def test_an_unknown_base_model_is_a_sentence(cast, redis_url, pair):
    statement = statements.sign(str(cast.acme.pk), statements.EXPORT, "x", "0" * 64, {})
    counts = {"train_pairs": 1, "heldout_pairs": 1, "seed": 7}
    frozen = Export.objects.create(
        tenant=cast.acme, run=pair.run, digest="0" * 64, path="x", statement=statement, **counts
    )
    client = client_of(cast.engineer)
    answer = client.post(f"{ACME}runs/", {"export": str(frozen.pk), "base": "nope"}, format="json")
    assert answer.status_code == 422
    assert "nope" in answer.json()["detail"]
    missing = {"export": "00000000-0000-0000-0000-000000000000", "base": "nope"}
    assert client.post(f"{ACME}runs/", missing, format="json").status_code == 404


def test_a_failed_job_is_queued_again_by_an_engineer_only(cast, redis_url, pair):
    job = pair.run.job
    Job.objects.filter(pk=job.pk).update(state=Job.State.FAILED, error="x")
    assert client_of(cast.auditor).post(f"{ACME}jobs/{job.pk}/").status_code == 403
    assert client_of(cast.engineer).post(f"{ACME}jobs/{job.pk}/").json()["state"] == "queued"


def test_the_schema_is_published(cast):
    answer = client_of(cast.engineer).get("/api/v1/schema/")
    assert answer.status_code == 200


def test_a_page_is_bounded_whatever_is_asked_for(cast, redis_url, pair):
    client = client_of(cast.engineer)
    for limit in ("10000000", "99999999999999999999"):
        assert client.get(f"{ACME}pairs/", {"limit": limit}).status_code == 200
    assert rest.MOST_ROWS == 500
