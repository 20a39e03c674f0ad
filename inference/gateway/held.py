"""What a gateway bears in mind of its calls: those under way, and the events of those that ended."""

from __future__ import annotations

from typing import Protocol

from tenants.metering import Event, Terms


class OpenCall(Protocol):
    """What admission needs of a call: its event, by which terms, the most it can take, how far it has come."""

    event: Event
    terms: Terms
    hold_nano: int
    tokens: int

    def progress(self) -> tuple[int, int, int]:
        """Input tokens, output tokens, nano-dollars, so far."""

    def stop(self, reason: str) -> None:
        """Ends it before its time; it still settles."""


class Kept:
    """An event on its way to the ledger; `place` in the stream is None while it is not delivered."""

    __slots__ = ("event", "place", "sending")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.place: tuple[int, int] | None = None
        self.sending = False
