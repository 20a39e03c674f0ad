"""A client of an engine's control and chat addresses: vLLM's, which the embedded engine speaks too. Synchronous; for
jobs and commands. The gateway has its own path (`gateway.upstream`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.engines import key

if TYPE_CHECKING:
    import httpx2

IDLE_SECONDS = 4.0  # servers close a connection that nobody has used for 5 s
TIMEOUT = 120.0  # seconds; a load reads files, an answer on a CPU takes its time


class EngineError(Exception):
    """The engine refused, or is not there. `status` is its HTTP status, 0 when it was not reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class EngineDown(EngineError):
    """Nobody answers at the engine's address (`status` 0), or it has no model yet (`status` 503)."""

    def __init__(self, url: str, cause: str, status: int = 0) -> None:
        super().__init__(
            f"The engine at {url} does not answer ({cause}). Start it, or set ENGINE_URL to one that runs.", status
        )
        self.url, self.cause = url, cause


class Engine:
    """An engine at `url`, e.g. http://127.0.0.1:8041. `key_file` has what opens it, another one after each start; or
    `secret` does. `spent(prompt tokens, generated tokens)` is told of each answer: no gateway counts these.
    """

    def __init__(
        self,
        url: str,
        timeout: float = TIMEOUT,
        key_file: Path | None = None,
        secret: str = "",
        spent: Callable[[int, int], None] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.timeout, self.key_file, self._secret, self._spent = timeout, key_file, secret, spent
        self._http: httpx2.Client | None = None  # made once: reading the certificates of the world takes its time

    def health(self) -> dict[str, Any]:
        """Raises EngineDown while the engine is not there or has no model yet."""
        body: dict[str, Any] = self._ask("GET", "/health") or {}
        return body

    def models(self) -> list[str]:
        """Names that a chat may ask for: the base model first, then the loaded adapters."""
        return [model["id"] for model in self.listing()]

    def listing(self) -> list[dict[str, Any]]:
        """The same with what the engine says of each, `root` (where its files are) among it."""
        found: list[dict[str, Any]] = self._ask("GET", "/v1/models")["data"]
        return found

    def load(self, name: str, path: Path | str) -> None:
        """Loads the adapter in `path` as `name`; an engine that has that name already is left as it is."""
        if name not in self.models():
            self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})

    def unload(self, name: str) -> None:
        """Unloads `name`; one that is not loaded is no error."""
        try:
            self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        except EngineError as error:
            if error.status not in {400, 404}:
                raise

    def chat(self, model: str, messages: list[dict[str, str]], **options: Any) -> dict[str, Any]:
        """An OpenAI chat completion."""
        return self._answer("/v1/chat/completions", {"model": model, "messages": messages, **options})

    def _answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = self._ask("POST", path, body)
        usage = told.get("usage")
        if self._spent and isinstance(usage, dict):
            # An engine reads the prompt for each of several answers, and reports it once.
            read, made = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
            self._spent(read * int(body.get("n", 1)), made)
        return told

    def version(self) -> str:
        """Which engine it is, and of which version; empty where it does not say."""
        try:
            told = self._ask("GET", "/version")
            return str(told["version"])
        except (EngineError, LookupError, TypeError):
            return ""

    def metrics(self) -> dict[str, float]:
        """Its own figures, each summed over its labels; raises EngineError."""
        sums: dict[str, float] = {}
        for line in str(self._ask("GET", "/metrics")).splitlines():
            name, _, rest = line.partition("{" if "{" in line else " ")
            if line.startswith("#") or not rest:
                continue
            with contextlib.suppress(ValueError):
                sums[name] = sums.get(name, 0.0) + float(rest.rpartition(" ")[2])
        return sums

    def greedy(self, model: str, prompt: Sequence[int], tokens: int) -> tuple[list[int], list[float]]:
        """The likeliest answer of at most so many tokens to token ids: its ids and their log-probabilities.

        Raises EngineError, also where the answer cannot be read.
        """
        body = {"model": model, "prompt": list(prompt), "max_tokens": tokens, "temperature": 0, "logprobs": 1}
        # vLLM's own: names tokens by their ids, and leaves the model's own wishes for sampling aside.
        body |= {"return_tokens_as_token_ids": True, "repetition_penalty": 1.0}
        told = self._answer("/v1/completions", body)
        try:
            made = told["choices"][0]["logprobs"]
            ids = [int(token.removeprefix("token_id:")) for token in made["tokens"]]
            return ids, [float(value) for value in made["token_logprobs"]]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(f"The engine's answer cannot be read: {error!r}"[:200]) from error

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        import httpx2

        if self._http is None:
            limits = httpx2.Limits(keepalive_expiry=IDLE_SECONDS)
            self._http = httpx2.Client(timeout=self.timeout, limits=limits)
        try:
            response = self._http.request(method, self.url + path, json=body, headers=self.headers())
        except httpx2.HTTPError as error:
            raise EngineDown(self.url, str(error) or type(error).__name__) from error
        if response.status_code == 503:
            raise EngineDown(self.url, _message(response), 503)
        if response.status_code >= 400:
            raise EngineError(_message(response), response.status_code)
        # vLLM answers some control calls with a bare sentence
        return response.json() if "json" in response.headers.get("content-type", "") else response.text

    def headers(self) -> dict[str, str]:
        """What opens it now."""
        secret = self._secret or (key.read(self.key_file) if self.key_file else "")
        return {"Authorization": f"Bearer {secret}"} if secret else {}


def _message(response: Any) -> str:
    try:
        body = response.json()
        return str((body.get("error") or body).get("message", response.text))
    except (ValueError, AttributeError):
        return str(response.text)[:300]
