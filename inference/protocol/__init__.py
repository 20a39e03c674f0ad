"""The OpenAI wire format: what requests may say, how errors look, how streams are framed. Pure."""

from inference.protocol import chat, completions, embeddings
from inference.protocol.answers import DONE, MOST_REPORTED, EventReader, frame, usage_of
from inference.protocol.fields import MAX_BODY, read_json
from inference.protocol.refusal import Refusal
from inference.protocol.request import Operation, Request

PARSERS = {
    chat.CHAT.path: chat.parse,
    completions.COMPLETION.path: completions.parse,
    embeddings.EMBEDDING.path: embeddings.parse,
}

__all__ = [
    "DONE",
    "MAX_BODY",
    "MOST_REPORTED",
    "PARSERS",
    "EventReader",
    "Operation",
    "Refusal",
    "Request",
    "chat",
    "completions",
    "embeddings",
    "frame",
    "read_json",
    "usage_of",
]
