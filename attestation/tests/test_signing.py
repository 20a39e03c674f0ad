"""DSSE with Ed25519: what is signed verifies, and nothing else does."""

import base64
import copy

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation import signing

PAYLOAD = b'{"a":"\xc4\xb1"}'


@pytest.fixture
def private():
    return signing.generate()


@pytest.fixture
def keys(private):
    public = signing.public_hex(private)
    return {signing.key_id(public): public}


@pytest.fixture
def envelope(private):
    return signing.sign_envelope(private, signing.PAYLOAD_TYPE, PAYLOAD)


def reason(envelope, keys, **options):
    with pytest.raises(signing.VerificationError) as caught:
        signing.verify_envelope(envelope, keys, **options)
    return caught.value.reason


def test_pae_is_that_of_the_specification():
    assert signing.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert signing.pae("ş", b"") == b"DSSEv1 2 \xc5\x9f 0 "


def test_keys_are_those_of_rfc_8032():
    """RFC 8032, 7.1, test 1: the key pair, and the key id of its public half."""
    private = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert signing.public_hex(private) == public
    assert signing.key_id(public) == "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"


def test_what_was_signed_comes_back(envelope, keys):
    assert signing.verify_envelope(envelope, keys) == PAYLOAD


def test_a_changed_payload_is_caught(envelope, keys):
    envelope["payload"] = base64.b64encode(PAYLOAD + b" ").decode()
    assert reason(envelope, keys) == "signature"


def test_a_changed_signature_is_caught(envelope, keys):
    raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    raw[7] ^= 1
    envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()
    assert reason(envelope, keys) == "signature"


def test_a_second_spelling_of_the_same_signature_is_refused(envelope, keys):
    """The last base64 character before `==` has four spare bits that decoders ignore."""
    sig = envelope["signatures"][0]["sig"]
    twin = sig[:-3] + chr(ord(sig[-3]) + 1) + "=="
    assert base64.b64decode(twin) == base64.b64decode(sig)
    envelope["signatures"][0]["sig"] = twin
    assert reason(envelope, keys) == "malformed"


def test_another_key_is_unknown(envelope):
    public = signing.public_hex(signing.generate())
    assert reason(envelope, {signing.key_id(public): public}) == "unknown_key"
    assert reason(envelope, {}) == "unknown_key"


def test_another_key_under_a_known_id_is_caught(keys):
    forged = signing.sign_envelope(signing.generate(), signing.PAYLOAD_TYPE, PAYLOAD)
    forged["signatures"][0]["keyid"] = next(iter(keys))
    assert reason(forged, keys) == "signature"


def test_a_payload_of_another_type_is_refused(private, keys):
    other = signing.sign_envelope(private, "text/plain", PAYLOAD)
    assert reason(other, keys) == "payload_type"
    assert signing.verify_envelope(other, keys, payload_type="text/plain") == PAYLOAD


def test_a_payload_relabelled_as_another_type_is_caught(private, keys):
    other = signing.sign_envelope(private, "text/plain", PAYLOAD)
    assert reason(other | {"payloadType": signing.PAYLOAD_TYPE}, keys) == "signature"


def test_one_good_signature_by_a_known_key_is_enough(envelope, keys):
    stranger = signing.sign_envelope(signing.generate(), signing.PAYLOAD_TYPE, PAYLOAD)
    envelope["signatures"].insert(0, stranger["signatures"][0])
    assert signing.verify_envelope(envelope, keys) == PAYLOAD


@pytest.mark.parametrize("part", ["payloadType", "payload", "signatures", "keyid", "sig"])
@pytest.mark.parametrize("value", [None, 7, [], {}, ["x"], "ş", "a"])
def test_nonsense_is_refused_plainly(envelope, keys, part, value):
    broken = copy.deepcopy(envelope)
    holder = broken if part in broken else broken["signatures"][0]
    holder[part] = value
    assert reason(broken, keys) in {"malformed", "payload_type", "unknown_key"}
    del holder[part]
    assert reason(broken, keys) == "malformed"


@pytest.mark.parametrize("envelope", [None, [], "x", 5, {}])
def test_what_is_no_envelope_is_refused_plainly(envelope):
    assert reason(envelope, {}) == "malformed"
