"""What a caller can put right: every such error of this app is a `Refused`, and its text is one clear sentence.

The console and the REST API show `str(error)`; `field` names what it is about, `status` is its HTTP status.
"""

from __future__ import annotations

from datetime import UTC, datetime

FIRST, LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)  # instants that a setting may name


class Refused(ValueError):
    """Nothing was changed. `str(error)` is a sentence in the active language that says what to do."""

    status = 422
    field = ""

    def __init__(self, sentence: str, field: str = "") -> None:
        super().__init__(sentence)
        self.field = field or self.field
