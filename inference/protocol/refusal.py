"""How a call is refused: OpenAI's error object, with slugs as codes and what client libraries wait by. Pure."""

from __future__ import annotations

from typing import Any

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refusal(Exception):
    """A call that ends with an error: HTTP status, stable code, a sentence that says what to do.

    `wait_us` is when it may be sent again, -1 if waiting does not help, 0 if nothing is known; `decision` is the token
    that explains it (`tenants.decisions`).
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after: int = 0,
        *,
        wait_us: int = 0,
        decision: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.wait_us, self.decision = wait_us or retry_after * 1_000_000, decision
        self.also: dict[str, str] = {}  # headers that any answer to this call would carry

    def body(self, request_id: str) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        if self.code == "insufficient_quota":
            kind = self.code
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        told = {"request_id": request_id} | ({"decision_id": self.decision} if self.decision else {})
        return {"error": error | told}

    def headers(self) -> dict[str, str]:
        """What client libraries go by: RFC 9110's Retry-After and OpenAI's own two."""
        found = self.also | ({"x-paramstack-decision": self.decision} if self.decision else {})
        if self.wait_us < 0:
            found["x-should-retry"] = "false"
        elif self.wait_us:
            found["retry-after"] = str(-(-self.wait_us // 1_000_000))
            found["retry-after-ms"] = str(-(-self.wait_us // 1000))
        return found


def invalid(param: str, message: str) -> Refusal:
    return Refusal(400, "invalid_request", message, param)
