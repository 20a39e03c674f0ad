"""What callers think of answers."""

import json

import pytest

from inference import protocol
from inference.models import Feedback
from inference.protocol import feedback
from tenants import keys

pytestmark = pytest.mark.django_db(transaction=True)
ID = "req_" + "0" * 24


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"score": 5}, "request_id"),
        ({"request_id": "x", "score": 5}, "request_id"),
        ({"request_id": ID}, "score"),
        ({"request_id": ID, "score": 0}, "score"),
        ({"request_id": ID, "score": 6}, "score"),
        ({"request_id": ID, "score": 5, "thumbs": "up"}, "score"),
        ({"request_id": ID, "thumbs": "sideways"}, "thumbs"),
        ({"request_id": ID, "score": "5"}, "score"),
        ({"request_id": ID, "score": 5, "comment": "x" * 2001}, "comment"),
        ({"request_id": ID, "score": 5, "comment": "a\0b"}, "comment"),
        ({"request_id": ID, "score": 5, "user": "x"}, "user"),
    ],
)
def test_what_is_no_feedback_is_refused_by_name(body, param):
    with pytest.raises(protocol.Refusal) as caught:
        feedback.parse(json.dumps(body).encode())
    assert (caught.value.status, caught.value.param) == (400, param)


def say(serving, key, request_id, **told):
    body = json.dumps({"request_id": request_id} | (told or {"score": 4})).encode()
    return serving.post(key, body, "/feedback")


def test_the_last_word_on_a_call_counts(serving, key):
    request_id = serving.post(key).json()["id"]
    assert say(serving, key, request_id, score=2).status_code == 200  # before it is booked
    serving.book()
    assert say(serving, key, request_id, thumbs="up", comment=" Güzel. ").status_code == 200
    kept = Feedback.objects.get()
    assert (kept.score, kept.thumbs, kept.comment, kept.request_id) == (None, "up", "Güzel.", request_id)


def test_a_strangers_call_is_as_unknown_as_none(serving, key, cast):
    request_id = serving.post(key).json()["id"]
    other = keys.create(cast.globex, "other", cast.owner)[1]
    strange, none = say(serving, other, request_id), say(serving, other, ID)
    assert strange.status_code == none.status_code == 404
    assert strange.json()["error"]["message"] == none.json()["error"]["message"]
    serving.book()
    assert say(serving, other, request_id).status_code == 404
    assert not Feedback.objects.exists()


def test_without_a_key_nothing_is_said(serving):
    assert say(serving, "ps_live_x", ID).status_code == 401
