"""Claude through the official SDK: one client, one call, and every way it can fail as a sentence with what to do.

The rule: a call's cost is known even when its answer is of no use. What is asked, and what is made of the answer, is
left to `generators` and `judges.claude`. Facts of anthropic 2.12: no sampling parameters; a key travels as a bearer
token; a key that is empty or padded looks like a network fault, so it is checked before anything is sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from training import quotes
from training.problems import Problem

if TYPE_CHECKING:
    import anthropic

MODEL = "claude-haiku-5-5"
RETRIES = 2  # of 429, 5xx and connection faults; the SDK obeys retry-after
TIMEOUT = 60.0  # seconds for one call
CREDIT = re.compile(r"credit balance", re.IGNORECASE)  # the API gives no code for it; the wording is only a hint
TERMS = gettext_lazy(
    "Claude's answers fall under Anthropic's commercial terms, which limit training models on them. "
    "Read them before the first paid run; every row keeps who wrote it, so such rows can be left out."
)


class WrongKeyKind(Problem):
    """What was given is not an API key for the Messages API; `kind` says what it looks like."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        sentences = {
            "empty": _("No Anthropic API key is set: run `manage.py setup_api_key`, or set ANTHROPIC_API_KEY."),
            "admin": _("This is an Anthropic admin key (sk-ant-admin…): it manages an organisation and cannot ask for "
                       "answers. Create an API key (sk-ant-api03-…) in the Anthropic console, under API keys."),
            "oauth": _("This is an OAuth token of a personal login (sk-ant-oat…), which is not meant for applications. "
                       "Create an API key (sk-ant-api03-…) in the Anthropic console, under API keys."),
            "openai": _("This looks like an OpenAI key (sk-…). An Anthropic API key starts with sk-ant-api03-."),
            "own": _("This is a Param Stack key (ps_…): it calls this gateway. An Anthropic API key starts with "
                     "sk-ant-api03-."),
            "text": _("This is not a key: it holds spaces or characters that no key has. Copy it again, whole."),
        }  # fmt: skip
        super().__init__(sentences[kind])


class KeyRefused(Problem):
    def __init__(self) -> None:
        super().__init__(
            _("Anthropic does not accept the key: it is wrong, expired or revoked. Run `manage.py setup_api_key`.")
        )


class LowCredit(Problem):
    def __init__(self) -> None:
        super().__init__(
            _("The key works, but its Anthropic account has too little credit: add credit in the Anthropic console "
              "under Plans & Billing, or use a key of another workspace, then start again; what was paid is kept.")
        )  # fmt: skip


class NotAllowed(Problem):
    def __init__(self, model: str, reason: str) -> None:
        self.model = model
        words = {"model": model, "reason": reason}
        super().__init__(_("Anthropic refused the request for %(model)s: %(reason)s") % words)


class Busy(Problem):
    """Rate limit or overload that outlasted the retries."""

    def __init__(self) -> None:
        super().__init__(_("Anthropic is too busy for us right now (rate limit or overload). Start again in a minute."))


class Unreachable(Problem):
    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            _("Anthropic cannot be reached at %(address)s: check the network, the proxy and ANTHROPIC_BASE_URL.")
            % {"address": address}
        )


@dataclass(frozen=True)
class Reply:
    """One answer of the Messages API. `text` is empty for a refusal; tokens and cost count all that was billed."""

    text: str
    stop_reason: str
    model: str
    request_id: str
    input_tokens: int
    output_tokens: int
    cost_nano: int


def key_kind(key: str) -> str:
    """ "api" for an API key, "unknown" for what may be one, else the kind of WrongKeyKind."""
    if not key:
        return "empty"
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        return "text"
    kinds = {"sk-ant-api": "api", "sk-ant-admin": "admin", "sk-ant-oat": "oauth", "sk-ant-ort": "oauth",
             "sk-ant-": "unknown", "sk-": "openai", "ps_": "own"}  # fmt: skip
    return next((kind for prefix, kind in kinds.items() if key.startswith(prefix)), "unknown")


def client(key: str | None = None) -> anthropic.Anthropic:
    """A client for `key` (default: the configured one). Raises WrongKeyKind before anything is sent."""
    key = (settings.ANTHROPIC_API_KEY if key is None else key).strip()
    if (kind := key_kind(key)) not in {"api", "unknown"}:
        raise WrongKeyKind(kind)
    import anthropic

    return anthropic.Anthropic(api_key=key, base_url=settings.ANTHROPIC_BASE_URL, max_retries=RETRIES, timeout=TIMEOUT)


def ask(
    client: anthropic.Anthropic,
    model: str,
    system: str,
    user: str,
    max_tokens: int,
    schema: dict[str, Any] | None = None,
) -> Reply:
    """One question, one Reply. `schema` asks for JSON of that shape, which the caller still has to check.

    Raises the Problems of this module.
    """
    config: anthropic.types.OutputConfigParam = {"effort": "low"}
    if schema is not None:
        config["format"] = {"type": "json_schema", "schema": schema}
    with _problems(model, str(client.base_url)):
        message = client.messages.create(
            model=model,
            max_tokens=max_tokens,
            system=system,
            messages=[{"role": "user", "content": user}],
            output_config=config,
        )
    return _reply(message, model)


def prove(client: anthropic.Anthropic, model: str = MODEL) -> None:
    """Proves that the key works and is paid for, with one free call and one of a single token."""
    with _problems(model, str(client.base_url)):
        client.models.list(limit=1)
        client.messages.create(model=model, max_tokens=1, messages=[{"role": "user", "content": "1"}])


def _reply(message: anthropic.types.Message, model: str) -> Reply:
    usage = message.usage
    read = (usage.input_tokens, usage.cache_creation_input_tokens or 0, usage.cache_read_input_tokens or 0)
    return Reply(
        text="".join(block.text for block in message.content if block.type == "text").strip(),
        stop_reason=message.stop_reason or "",
        model=message.model,
        request_id=message._request_id or "",
        input_tokens=sum(read),
        output_tokens=usage.output_tokens,
        cost_nano=quotes.cost(model, sum(read), usage.output_tokens),
    )


class _problems:
    """Turns the SDK's errors into Problems. A class and not a generator: it imports the SDK only when one happened."""

    def __init__(self, model: str, address: str) -> None:
        self.model, self.address = model, address

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        import anthropic

        if isinstance(error, anthropic.APIConnectionError):
            raise Unreachable(self.address) from error
        if isinstance(error, anthropic.APIStatusError):
            raise _refusal(error, self.model) from error


def _refusal(error: anthropic.APIStatusError, model: str) -> Problem:
    message = error.api_message or error.message
    if error.status_code == 402 or CREDIT.search(message):
        return LowCredit()
    if error.status_code == 401:
        return KeyRefused()
    if error.status_code == 429 and "spend_limit" in (error.error_code or ""):
        return NotAllowed(model, message)
    if error.status_code == 429 or error.status_code >= 500 or error.status_code in {408, 409}:
        return Busy()
    return NotAllowed(model, message)
