"""One digest for one thing, and a refusal for what has none."""

import os

import pytest

from attestation import canonical


def test_json_follows_rfc_8785():
    """The example of RFC 8785, section 3.2.2."""
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '\u20ac$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical.json_bytes(value).decode() == expected


@pytest.mark.parametrize("value", [2**53, float("nan"), {1: "a"}, "\ud800"])
def test_json_that_readers_would_understand_differently_is_refused(value):
    with pytest.raises(ValueError):  # noqa: PT011
        canonical.json_bytes(value)


@pytest.mark.parametrize("text", [b'{"a":1,"a":2}', b"NaN", b"[" * 100_000, b"\xff", b'{"a":', b""])
def test_json_is_read_strictly(text):
    with pytest.raises(ValueError):  # noqa: PT011
        canonical.parse(text)


def test_a_text_typed_in_two_ways_has_one_digest():
    assert canonical.text_digest("g\u0306") == canonical.text_digest("ğ") != canonical.text_digest("g")


def test_manifest_lists_every_file_by_name_and_not_the_envelope(folder):
    assert [entry["path"] for entry in canonical.manifest(folder.path)] == [
        "README.md",
        "adapter_config.json",
        "weights/model.safetensors",
    ]
    assert canonical.manifest(folder.path)[0] == {
        "path": "README.md",
        "sha256": "2689367b205c16ce32ed4200942b8b8b1e262dfc70d9bc9fbc77c49699a4f1df",
        "size": 2,
    }


def test_only_the_envelope_at_the_top_is_left_out(folder):
    (folder.path / "weights" / canonical.ENVELOPE_NAME).write_text("{}")
    assert "weights/attestation.json" in [entry["path"] for entry in canonical.manifest(folder.path)]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("README.md"),
        lambda path: path.symlink_to("weights"),
        lambda path: path.symlink_to("nowhere"),
        lambda path: os.mkfifo(path),
        lambda path: os.open(os.fsencode(path) + b"\xff", os.O_CREAT),
    ],
    ids=["link", "link to a directory", "dead link", "pipe", "name that is not UTF-8"],
)
def test_what_cannot_be_signed_is_refused(folder, make):
    make(folder.path / "strange")
    with pytest.raises(canonical.UnsignableFile, match="strange"):
        canonical.manifest(folder.path)


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        canonical.manifest(tmp_path / "absent")
