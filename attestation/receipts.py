"""Proof that one row is in a signed batch: row -> leaf -> path -> root -> statement.

The signature is per batch, not per row. A receipt holds nothing about the other rows but hashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attestation import canonical, log, statements
from attestation import verify as verification
from attestation.models import Statement
from attestation.signing import VerificationError, gettext_noop

TYPE = "https://paramstack.dev/receipt/v1"

Row = Mapping[str, Any]


def leaf(row: Row) -> bytes:
    """The leaf hash of a row's RFC 8785 bytes. Raises ValueError for what RFC 8785 cannot write."""
    return log.leaf_hash(canonical.json_bytes(row))


def seal(scope: str, batch_name: str, rows: Sequence[Row]) -> Statement:
    """Signs the Merkle root over `rows`, in their order; the statement's subject digest is the root in hex."""
    return seal_bytes(scope, batch_name, [canonical.json_bytes(row) for row in rows])


def seal_bytes(scope: str, batch_name: str, bodies: Sequence[bytes]) -> Statement:
    """The same for rows whose RFC 8785 bytes are at hand."""
    root = log.root([log.leaf_hash(body) for body in bodies]).hex()
    return statements.sign(scope, statements.LEDGER_BATCH, batch_name, root, {"size": len(bodies)})


def issue(rows: Sequence[Row], position: int, envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The receipt of `rows[position]` in the batch that `envelope` seals, ready for JSON."""
    path = log.path([leaf(row) for row in rows], position)
    return {
        "type": TYPE,
        "row": rows[position],
        "position": position,
        "path": [node.hex() for node in path],
        "envelope": envelope,
    }


def verify(receipt: Any, keys: Mapping[str, str]) -> dict[str, Any]:
    """`{"row", "statement"}` of a receipt that holds.

    Raises VerificationError: malformed, those of `verify.statement`, or path (the row is not the one in the batch).
    """
    try:
        row, position, envelope = receipt["row"], receipt["position"], receipt["envelope"]
        path, hashed = [_node(text) for text in receipt["path"]], leaf(row)
        if receipt["type"] != TYPE or type(position) is not int or not isinstance(row, dict):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise VerificationError("malformed", gettext_noop("This is not a receipt.")) from None
    signed = verification.statement(envelope, keys, predicate_type=statements.LEDGER_BATCH)
    root, size = bytes.fromhex(verification.digest_of(signed)), signed["predicate"].get("size")
    if not (isinstance(size, int) and log.verify_path(hashed, position, size, path, root)):
        raise VerificationError("path", gettext_noop("The row is not the one in the signed batch."))
    return {"row": row, "statement": signed}


def _node(text: str) -> bytes:
    """A hash in its one spelling: `fromhex` alone would also take capitals and spaces."""
    if not verification.SHA256.fullmatch(text):
        raise ValueError("not a SHA-256 in lower-case hex")
    return bytes.fromhex(text)
