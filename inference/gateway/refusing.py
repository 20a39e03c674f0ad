"""The sentences and codes of what the gateway refuses for the sake of keys, limits and money. Pure."""

from __future__ import annotations

from inference.protocol import Refusal
from tenants import decisions, metering
from tenants.decisions import Decision
from tenants.metering import Verdict

NANO = 1_000_000_000  # nano-dollars in a dollar
UNITS = dict(
    zip(
        metering.LIMITS,
        ("requests a second", "requests a minute", "tokens a second", "tokens a minute", "calls at a time"),
        strict=True,
    )
)
OWNERS = {"key": "this key", "tenant": "your organisation"}
UNKNOWN = "This key is unknown or not made for inference. Check it, or create one in the console."
ENDED = {
    "revoked": "This key was revoked. Use the one that replaced it, or create one in the console.",
    "expired": "This key has expired. Create one in the console.",
    "suspended": "The organisation of this key is suspended. The operator of this installation can say why.",
}
STOPPED = {
    "key_revoked": "The key was revoked while this call was answered. What was produced until then is charged.",
    "key_expired": "The key expired while this call was answered. What was produced until then is charged.",
    "key_suspended": "The organisation was suspended during this call. What was produced until then is charged.",
    "hold_lost": "This gateway lost the hold of the call. What was produced until then is charged. Send it again.",
    "model_not_allowed": "The key lost this model while it answered. What was produced until then is charged.",
}


class NotAllowed(Refusal):
    """The key is not made for the model. It gets its decision once the settings are known to be current."""

    def __init__(self, model: str) -> None:
        message = f"This key may not call {model[:80]!r}. GET /v1/models lists what it may; an owner can allow more."
        super().__init__(403, "model_not_allowed", message, "model", wait_us=-1)

    def decided(self, secret: bytes, tenant: str, key: str, model: str, at_us: int) -> NotAllowed:
        decision = Decision(tenant, key, at_us, self.code, "key", "allowed_models", wait_us=-1, model=model)
        self.decision = decisions.issue(secret, decision)
        return self


def no_key(ended: str = "") -> Refusal:
    """401. Why a key ended is told to whoever has its secret and to nobody else."""
    return Refusal(401, "invalid_api_key", ENDED[ended] if ended else UNKNOWN)


def stopped(reason: str) -> Refusal:
    """What the last event of a stream says that was ended."""
    status = 503 if reason == "hold_lost" else 401 if reason.startswith("key") else 403
    return Refusal(status, reason, STOPPED[reason])


def too_many_unknown(wait: float) -> Refusal:
    message = "Too many unknown keys came from this address. Check the key, then try again."
    return Refusal(429, "rate_limit_exceeded", message, wait_us=max(1, round(wait * 1_000_000)))


def backlog() -> Refusal:
    message = "The ledger is behind, so no call is admitted. Try again in a few seconds."
    return Refusal(503, "ledger_behind", message, retry_after=5)


def unknown_model(model: str) -> Refusal:
    message = f"The model {model[:80]!r} does not exist for this key. GET /v1/models lists those that do."
    return Refusal(404, "model_not_found", message, "model")


def not_opened(name: str) -> Refusal:
    message = f"{name} is the engine's own and not open to your organisation. Remove it, or have it opened."
    return Refusal(400, "invalid_request", message, name)


def over(verdict: Verdict, decision: str, code: str) -> Refusal:
    """429 of a verdict that refused."""
    refusal = Refusal(429, code, _sentence(verdict, code), wait_us=verdict.wait_us, decision=decision)
    refusal.also = windows(verdict)
    return refusal


def _sentence(verdict: Verdict, code: str) -> str:
    if code == "insufficient_quota":
        need, left = dollars(verdict.need), dollars(max(0, verdict.limit - verdict.value))
        return (
            f"This call may cost ${need}, and of your organisation's budget of ${dollars(verdict.limit)} "
            f"${left} are left this month. An owner or the operator raises it in the console."
        )
    limit = f"the limit of {verdict.limit} {UNITS[verdict.limit_name]} of {OWNERS[verdict.scope]}"
    if code == "tokens_exceed_limit":
        return (
            f"This call may take {verdict.need} tokens, more than {limit} ever lets pass. "
            "Lower max_tokens, send a shorter prompt, or have the limit raised."
        )
    if verdict.wait_us < 0:
        return f"{limit.capitalize()} lets no call pass. An owner raises it in the console."
    if code == "concurrency_exceeded":
        return f"{limit.capitalize()} is reached. Try again when one of them has ended."
    return f"{limit.capitalize()} is reached. Try again in {duration(verdict.wait_us)}."


def dollars(nano: int) -> str:
    """Nano-dollars exactly, with two decimals at least."""
    whole, rest = divmod(nano, NANO)
    decimals = f"{rest:09d}".rstrip("0")
    return f"{whole}.{decimals:0<2}"


def windows(verdict: Verdict) -> dict[str, str]:
    """The headers of a call that met its limits: x-ratelimit-{limit,remaining,reset}-{requests,tokens}, as OpenAI's."""
    found: dict[str, str] = {}
    if window := verdict.requests:
        found["x-ratelimit-limit-requests"] = str(window.limit)
        found["x-ratelimit-remaining-requests"] = str(window.remaining)
        found["x-ratelimit-reset-requests"] = duration(window.reset_us)
    if window := verdict.tokens:
        found["x-ratelimit-limit-tokens"] = str(window.limit)
        found["x-ratelimit-remaining-tokens"] = str(window.remaining)
        found["x-ratelimit-reset-tokens"] = duration(window.reset_us)
    return found


def duration(us: int) -> str:
    """As OpenAI writes it: 12ms, 1s, 1.5s, 6m0s, 1h0m0s; rounded up to a millisecond."""
    ms = -(-us // 1000)
    if ms < 1000:
        return f"{ms}ms"
    seconds, rest = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    last = f"{seconds}.{rest:03d}".rstrip("0") if rest else str(seconds)
    return f"{hours}h{minutes}m{last}s" if hours else f"{minutes}m{last}s" if minutes else f"{last}s"
