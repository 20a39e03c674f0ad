"""Merkle trees as every RFC 6962 / 9162 implementation computes them."""

import pytest

from attestation import log

ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
LEAVES = [log.leaf_hash(entry) for entry in ENTRIES]
# The vectors of Google's Certificate Transparency, by number of entries.
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


@pytest.mark.parametrize("n", range(9))
def test_roots_are_the_published_ones(n):
    assert log.root(LEAVES[:n]).hex() == ROOTS[n]


@pytest.mark.parametrize(("place", "expected"), PATHS.items())
def test_paths_are_the_published_ones(place, expected):
    i, n = place
    assert [node.hex() for node in log.path(LEAVES[:n], i)] == expected


def test_every_leaf_of_every_small_tree_is_proved_and_only_in_its_place():
    leaves = [log.leaf_hash(bytes([i])) for i in range(20)]
    for n in range(1, 21):
        root = log.root(leaves[:n])
        for i in range(n):
            path = log.path(leaves[:n], i)
            accepted = {
                (other, at)
                for other in range(n)
                for at in range(n)
                if log.verify_path(leaves[other], at, n, path, root)
            }
            assert accepted == {(i, i)}
            assert not log.verify_path(leaves[i], i, n, [*path, root], root)
            assert not path or not log.verify_path(leaves[i], i, n, path[:-1], root)


@pytest.mark.parametrize(("i", "n"), [(-1, 3), (3, 3), (0, 0)])
def test_places_outside_the_tree_prove_nothing(i, n):
    assert not log.verify_path(LEAVES[0], i, n, [], LEAVES[0])


def test_a_smaller_tree_than_the_path_climbs_proves_nothing():
    assert log.verify_path(LEAVES[1], 1, 2, [LEAVES[0]], log.root(LEAVES[:2]))
    assert not log.verify_path(LEAVES[1], 0, 1, [LEAVES[0]], log.root(LEAVES[:2]))


def test_a_node_never_passes_for_a_leaf():
    assert log.leaf_hash(LEAVES[0] + LEAVES[1]) != log.root(LEAVES[:2])


def test_entries_are_not_taken_for_leaf_hashes():
    with pytest.raises(ValueError, match="leaf_hash"):
        log.root(ENTRIES)


def test_there_is_no_path_to_a_leaf_outside():
    with pytest.raises(IndexError):
        log.path(LEAVES, 8)
