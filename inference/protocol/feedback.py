"""What a caller thinks of an answer: {request_id, score 1-5 or thumbs up or down, comment}. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inference.protocol import fields
from inference.protocol.refusal import invalid

REQUEST_ID = re.compile(r"req_[0-9a-f]{24}")
LONGEST_COMMENT = 2_000  # characters
UNDERSTOOD = frozenset(("request_id", "score", "thumbs", "comment"))


@dataclass(frozen=True, slots=True)
class Feedback:
    """`score` is 1 to 5, 0 if there is none; `thumbs` is up, down or empty. One of them is there."""

    request_id: str
    score: int = 0
    thumbs: str = ""
    comment: str = ""


def parse(body: bytes) -> Feedback:
    """Raises Refusal 400 that names the place."""
    data = fields.read_json(body)
    fields.check_names(data, UNDERSTOOD)
    found = Feedback(
        fields.typed(data, "request_id", str, ""),
        fields.typed(data, "score", int, 0),
        fields.typed(data, "thumbs", str, ""),
        fields.typed(data, "comment", str, "").strip(),
    )
    if not REQUEST_ID.fullmatch(found.request_id):
        raise invalid("request_id", "request_id is the id of an answer, or of its x-request-id header: req_...")
    if data.get("score") is not None and not 1 <= found.score <= 5:
        raise invalid("score", "score must be 1 to 5.")
    if found.thumbs not in ("", "up", "down"):
        raise invalid("thumbs", "thumbs must be up or down.")
    if bool(found.score) == bool(found.thumbs):
        raise invalid("score", "Send either score or thumbs.")
    if len(found.comment) > LONGEST_COMMENT or "\0" in found.comment:
        raise invalid("comment", f"comment may have {LONGEST_COMMENT} characters at most, none of them NUL.")
    return found
