"""Message Batches of the loopback server, by the real SDK, from creation to deletion."""

from __future__ import annotations

import anthropic
import pytest

from training.loopback.options import KEY
from training.loopback.server import Loopback, served
from training.tests.test_loopback import HAIKU, ask


@pytest.fixture
def app():
    return Loopback()


@pytest.fixture
def client(app):
    with served(app) as address, anthropic.Anthropic(api_key=KEY, base_url=address, max_retries=0) as found:
        yield found


def requests(number=3):
    return [
        {
            "custom_id": f"job7-{n}",
            "params": {"model": HAIKU, "max_tokens": 300, "messages": [{"role": "user", "content": f"soru {n}"}]},
        }
        for n in range(number)
    ]


def test_a_batch_answers_everything_at_half_price(client, app):
    batch = client.messages.batches.create(requests=requests(20))
    batch = client.messages.batches.retrieve(batch.id)
    assert (batch.processing_status, batch.request_counts.succeeded, batch.request_counts.processing) == (
        "ended",
        20,
        0,
    )
    lines = {line.custom_id: line for line in client.messages.batches.results(batch.id)}
    assert lines.keys() == {f"job7-{n}" for n in range(20)}
    message = lines["job7-4"].result.message
    assert message.usage.service_tier == "batch"
    assert message.content[1].text == ask(client, "soru 4").content[1].text
    used = [line.result.message.usage for line in lines.values()]
    by_batch = sum(line.cost_nano for line in app.bill.lines if line.batch_id == batch.id)
    assert 2 * by_batch == sum(one.input_tokens * 100 + one.output_tokens * 500 for one in used)


def test_results_come_in_another_order_than_the_requests(client):
    batch = client.messages.batches.create(requests=requests(20))
    assert [line.custom_id for line in client.messages.batches.results(batch.id)] != [f"job7-{n}" for n in range(20)]


def test_until_its_time_a_batch_is_in_progress_and_costs_nothing(client, app):
    app.change(batch_delay_s=60.0)
    batch = client.messages.batches.create(requests=requests())
    told = client.messages.batches.retrieve(batch.id)
    assert (told.processing_status, told.request_counts.processing, told.results_url) == ("in_progress", 3, None)
    assert client.get("/_bill", cast_to=object)["total_nano"] == 0
    with pytest.raises(anthropic.AnthropicError, match="in_progress"):
        client.messages.batches.results(batch.id)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.delete(batch.id)


def test_a_cancelled_batch_ends_with_every_request_cancelled(client, app):
    app.change(batch_delay_s=60.0)
    batch = client.messages.batches.create(requests=requests())
    assert client.messages.batches.cancel(batch.id).processing_status == "canceling"
    ended = client.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, ended.request_counts.canceled) == ("ended", 3)
    assert {line.result.type for line in client.messages.batches.results(batch.id)} == {"canceled"}
    assert app.bill.total_nano == 0
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.cancel(batch.id)


def test_batches_are_listed_newest_first_and_deleted(client):
    made = [client.messages.batches.create(requests=requests(1)).id for _ in range(5)]
    assert [batch.id for batch in client.messages.batches.list(limit=2)] == made[::-1]
    newer = client.messages.batches.list(limit=2, before_id=made[1])
    assert ([batch.id for batch in newer.data], newer.has_more) == ([made[3], made[2]], True)
    assert client.messages.batches.delete(made[0]).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(made[0])


def test_what_is_wrong_with_one_request_shows_in_its_result_only(client):
    wrong = requests(2)
    wrong[1]["params"]["temperature"] = 0.5
    batch = client.messages.batches.create(requests=wrong)
    lines = {line.custom_id: line.result for line in client.messages.batches.results(batch.id)}
    assert lines["job7-0"].type == "succeeded"
    assert lines["job7-1"].error.error.type == "invalid_request_error"


@pytest.mark.parametrize("names", [["same", "same"], ["no spaces", "b"], ["x" * 65, "b"]])
def test_custom_ids_are_checked_before_anything_is_taken(client, app, names):
    wrong = [{**one, "custom_id": name} for one, name in zip(requests(2), names, strict=True)]
    with pytest.raises(anthropic.BadRequestError, match="custom_id"):
        client.messages.batches.create(requests=wrong)
    assert not app.batches.kept


def test_a_batch_meets_faults_of_its_own(client, app):
    app.change(batch_expired=0.5, server_error=0.5)
    batch = client.messages.batches.create(requests=requests(40))
    found = {line.result.type for line in client.messages.batches.results(batch.id)}
    assert found == {"succeeded", "expired", "errored"}
    app.change(batch_expired=0.0, server_error=0.0, credit_nano=app.bill.total_nano + 1)
    batch = client.messages.batches.create(requests=requests(2))
    results = [line.result for line in client.messages.batches.results(batch.id)]
    assert sorted(result.type for result in results) == ["errored", "succeeded"]
