"""Merkle trees as in RFC 9162, section 2.1 (the same as RFC 6962): pure functions over leaf hashes of 32 bytes.

A leaf hash comes from `leaf_hash`; the prefixes 0x00 and 0x01 keep a leaf from passing for a node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def leaf_hash(data: bytes) -> bytes:
    """The hash of one entry."""
    return hashlib.sha256(b"\x00" + data).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes (section 2.1.1)."""
    if any(len(leaf) != 32 for leaf in leaves):
        raise ValueError("A leaf is a hash of 32 bytes: use log.leaf_hash.")
    if not leaves:
        return hashlib.sha256(b"").digest()
    level, sha256 = list(leaves), hashlib.sha256
    while len(level) > 1:  # level by level: an odd last node moves up as it is, which is the split of the definition
        pairs = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def path(leaves: Sequence[bytes], i: int) -> list[bytes]:
    """The inclusion proof of leaf `i`, from the leaf upwards (section 2.1.3.1)."""
    if not 0 <= i < len(leaves):
        raise IndexError(f"leaf {i} of {len(leaves)}")
    if len(leaves) == 1:
        return []
    middle = _split(len(leaves))
    if i < middle:
        return [*path(leaves[:middle], i), root(leaves[middle:])]
    return [*path(leaves[middle:], i - middle), root(leaves[:middle])]


def verify_path(leaf: bytes, i: int, n: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `leaf` is number `i` of the `n` leaves under `root` (section 2.1.3.2)."""
    if not 0 <= i < n:
        return False
    first, last, reached = i, n - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if first & 1 or first == last:
            reached = _node(sibling, reached)
            while first and not first & 1:  # a right edge skips the levels where it has no sibling
                first, last = first >> 1, last >> 1
        else:
            reached = _node(reached, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and reached == root


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(n: int) -> int:
    """The largest power of two below `n`."""
    return 1 << ((n - 1).bit_length() - 1)
