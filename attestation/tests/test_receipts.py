"""A receipt proves its row and no other."""

import copy
import json

import pytest

from attestation import keyring, receipts, signing, statements

ROWS = [{"request_id": f"req_{i}", "cost_nano": 10**15 + i, "model": "şampiyon"} for i in range(5)]

pytestmark = pytest.mark.django_db


@pytest.fixture
def envelope():
    return receipts.seal("acme", "batch 1", ROWS).envelope


@pytest.fixture
def receipt(envelope):
    return json.loads(json.dumps(receipts.issue(ROWS, 3, envelope)))


def reason(receipt):
    with pytest.raises(signing.VerificationError) as caught:
        receipts.verify(receipt, keyring.public_keys())
    return caught.value.reason


def test_every_row_of_the_batch_has_a_receipt_that_holds(envelope):
    for position, row in enumerate(ROWS):
        verified = receipts.verify(receipts.issue(ROWS, position, envelope), keyring.public_keys())
        assert verified["row"] == row
        assert verified["statement"]["predicate"] == {"size": 5}


def test_a_changed_amount_is_caught(receipt):
    receipt["row"]["cost_nano"] += 1
    assert reason(receipt) == "path"


def test_another_row_another_place_and_another_path_are_caught(receipt):
    assert reason(receipt | {"row": ROWS[2]}) == "path"
    assert reason(receipt | {"position": 2}) == "path"
    assert reason(receipt | {"path": receipt["path"][::-1]}) == "path"
    assert reason(receipt | {"path": receipt["path"][1:]}) == "path"


def test_a_batch_that_nobody_signed_is_caught(receipt):
    forged = copy.deepcopy(receipt)
    forged["envelope"]["signatures"][0]["sig"] = "A" * 86 + "=="
    assert reason(forged) == "signature"


def test_a_statement_that_is_no_batch_is_refused(receipt):
    other = statements.sign("acme", statements.ADAPTER, "a", receipts.leaf(ROWS[0]).hex(), {"size": 1})
    lone = receipt | {"row": ROWS[0], "position": 0, "path": [], "envelope": other.envelope}
    assert reason(lone) == "predicate"


@pytest.mark.parametrize("part", ["type", "row", "position", "path", "envelope"])
@pytest.mark.parametrize("value", [None, 1.5, "x", ["x"], {}, 2**60])
def test_nonsense_is_refused_plainly(receipt, part, value):
    assert reason(receipt | {part: value}) in {"malformed", "path"}
    del receipt[part]
    assert reason(receipt) == "malformed"


def test_the_receipt_of_a_revoked_key_does_not_hold(receipt):
    keyring.revoke(keyring.current().key_id)
    assert reason(receipt) == "unknown_key"
