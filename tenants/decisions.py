"""A refusal as a token that explains itself: `dec_` + what was decided, with an HMAC. Pure; nothing is stored.

Rule: whoever holds the secret can read it, nobody else can make or change one. It says what happened, not what to do
about it (`refusals`). The encoding is compact and canonical: version, numbers as LEB128 in a fixed order, texts with
their length, then the first 128 bits of HMAC-SHA256 over all of it. A decision has exactly one text.
"""

from __future__ import annotations

import base64
import hmac
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from tenants.metering import REFUSERS, Event, Refusal, Verdict

PREFIX, VERSION = "dec_", 1
LONGEST = 600  # characters; all limits at their highest need 500
CODES = (
    "rate_limit_exceeded",
    "tokens_exceed_limit",  # the call needs more than the limit: it never passes
    "concurrency_exceeded",
    "insufficient_quota",
    "model_not_allowed",
)
SCOPES = ("", "tenant", "key")
NAMES = ("", *dict.fromkeys(name for _, name in REFUSERS.values()), "allowed_models")
_TAG = 16  # bytes
_BODY = (LONGEST - len(PREFIX)) // 4 * 3 - _TAG  # bytes at most
_MOST = 2**56 - 1  # eight bytes of LEB128; money and microseconds stay far below
_TEXT = re.compile(PREFIX + r"[A-Za-z0-9_-]{20,596}", re.ASCII)


class NotADecision(ValueError):
    """Not a text that `issue` made with this secret."""

    def __init__(self) -> None:
        super().__init__("This is no refusal of this installation. Copy all of it, from dec_ to the last character.")


@dataclass(frozen=True, slots=True)
class Decision:
    """Why one call was refused. Units are those of the limit: calls, tokens, nano-dollars.

    `value` was in use at `at_us`, `need` is what the call asked for, `wait_us` when it would pass, -1 if waiting does
    not help. `refusals` are all the limits that refused it, each with the smallest one that would not have. `tokens`
    and `hold_nano` are the most the call could take; `answers` times `max_tokens` of the tokens are for the answer.
    """

    tenant: str
    key: str
    at_us: int
    code: str
    scope: str = ""
    limit_name: str = ""
    limit: int = 0
    value: int = 0
    need: int = 0
    wait_us: int = 0
    model: str = ""
    tokens: int = 0
    hold_nano: int = 0
    max_tokens: int = 0  # 0: unknown
    answers: int = 1
    refusals: tuple[Refusal, ...] = ()


def refused(
    verdict: Verdict, event: Event, tokens: int, hold_nano: int, max_tokens: int = 0, answers: int = 1
) -> Decision:
    """The decision that ADMIT made by refusing `event`."""
    v = verdict
    facts = (v.scope, v.limit_name, v.limit, v.value, v.need, v.wait_us, event.model, tokens, hold_nano)
    return Decision(event.tenant, event.key, v.at_us, code_of(v), *facts, max_tokens, answers, v.refusals)


def code_of(verdict: Verdict) -> str:
    """The API's error code of a refusal by ADMIT."""
    if verdict.limit_name == "budget":
        return "insufficient_quota"
    if verdict.limit_name == "concurrent_calls":
        return "concurrency_exceeded"
    never = verdict.limit_name.startswith("tokens") and verdict.need > verdict.limit
    return "tokens_exceed_limit" if never else "rate_limit_exceeded"


def issue(secret: bytes, decision: Decision) -> str:
    """The text of `decision`, at most LONGEST characters; a model's name is cut where it does not fit."""
    d = decision
    head = bytes([VERSION, CODES.index(d.code), SCOPES.index(d.scope), NAMES.index(d.limit_name), len(d.refusals)])
    numbers = [d.at_us, d.limit, d.value, d.need, d.wait_us + 1, d.tokens, d.hold_nano, d.max_tokens, d.answers]
    for r in d.refusals:
        numbers += [SCOPES.index(r.scope), NAMES.index(r.limit_name), r.limit, r.value, r.wait_us + 1, r.enough + 1]
    body = head + b"".join(map(_number, numbers)) + _name(d.tenant) + _text(d.key.encode()[:32])
    body += _text(_cut(d.model, min(_BODY - len(body) - 1, 127)))
    return PREFIX + _encode(body + _tag(secret, body))


def read(secret: bytes, text: str) -> Decision:
    """The decision in `text`; raises NotADecision for anything that `issue` did not make with `secret`."""
    if not _TEXT.fullmatch(text) or len(text) % 4 == 1:
        raise NotADecision
    data = base64.urlsafe_b64decode(text[len(PREFIX) :] + "=" * (-len(text[len(PREFIX) :]) % 4))
    body, tag = data[:-_TAG], data[-_TAG:]
    if not hmac.compare_digest(tag, _tag(secret, body)) or PREFIX + _encode(data) != text or body[0] != VERSION:
        raise NotADecision
    return _decision(body)


def _decision(body: bytes) -> Decision:
    """Of bytes whose tag was right: they are as `issue` wrote them."""
    code, scope, name, count = CODES[body[1]], SCOPES[body[2]], NAMES[body[3]], body[4]
    rest = iter(body[5:])
    at_us, limit, value, need, wait, tokens, hold, max_tokens, answers = (_read_number(rest) for _ in range(9))
    refusals = []
    for _ in range(count):
        of, what, its_limit, its_value, its_wait, enough = (_read_number(rest) for _ in range(6))
        its_need = {"tokens": tokens, "budget": hold}.get(NAMES[what].split("_")[0], 1)
        refusals.append(Refusal(SCOPES[of], NAMES[what], its_limit, its_value, its_need, its_wait - 1, enough - 1))
    tenant, key, model = _read_name(rest), _read_text(rest).decode(), _read_text(rest).decode()
    facts = (code, scope, name, limit, value, need, wait - 1, model, tokens, hold, max_tokens, answers)
    return Decision(tenant, key, at_us, *facts, tuple(refusals))


def _tag(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, body, "sha256")[:_TAG]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> bytes:
    """LEB128; what is out of range becomes the end of the range, for a refusal must never fail."""
    value, found = min(max(value, 0), _MOST), bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_number(data: Iterator[int]) -> int:
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    return value


def _text(data: bytes) -> bytes:
    return bytes([len(data)]) + data


def _read_text(data: Iterator[int]) -> bytes:
    return bytes(next(data) for _ in range(next(data)))


def _name(tenant: str) -> bytes:
    """A tenant's id: the 16 bytes of a UUID behind a zero, or a text."""
    try:
        known = uuid.UUID(tenant)
    except ValueError:
        known = None
    return b"\0" + known.bytes if known and str(known) == tenant else _text(tenant.encode()[:40] or b"-")


def _read_name(data: Iterator[int]) -> str:
    size = next(data)
    found = bytes(next(data) for _ in range(size or 16))
    return found.decode() if size else str(uuid.UUID(bytes=found))


def _cut(name: str, size: int) -> bytes:
    """`name` in at most `size` bytes of UTF-8, whole characters; a cut one ends in an ellipsis."""
    data = name[: size + 1].encode(errors="replace")
    if len(data) <= size:
        return data
    return data[: size - 3].decode(errors="ignore").encode() + "…".encode()
