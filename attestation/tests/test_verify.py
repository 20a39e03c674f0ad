"""A directory is what was signed, or the verdict says which file is not."""

import json

import pytest

from attestation import canonical, signing, statements, verify
from attestation.tests.conftest import document


def refusal(call, *args, **options):
    with pytest.raises(signing.VerificationError) as caught:
        call(*args, **options)
    return caught.value


def signed(payload):
    """(envelope, keys) of any bytes, signed properly."""
    private = signing.generate()
    public = signing.public_hex(private)
    return signing.sign_envelope(private, signing.PAYLOAD_TYPE, payload), {signing.key_id(public): public}


def test_untouched_files_verify(folder):
    found = verify.directory(folder.path, folder.envelope, folder.keys, statements.ADAPTER)
    assert found["subject"][0]["name"] == "acme.destek-v1"
    assert verify.digest_of(found) == canonical.digest(canonical.manifest(folder.path))


def change(path):
    content = bytearray((path / "weights/model.safetensors").read_bytes())
    content[1000] ^= 1
    (path / "weights/model.safetensors").write_bytes(content)


def add(path):
    (path / "weights/new.bin").write_bytes(b"")


def remove(path):
    (path / "README.md").unlink()


def rename(path):
    (path / "README.md").rename(path / "readme.md")


def swap(path):
    """Two files exchange their contents: the same bytes, the same names."""
    one, other = path / "README.md", path / "adapter_config.json"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize(
    ("tamper", "changed", "missing", "added"),
    [
        (change, "weights/model.safetensors", "–", "–"),
        (add, "–", "–", "weights/new.bin"),
        (remove, "–", "README.md", "–"),
        (rename, "–", "README.md", "readme.md"),
        (swap, "README.md, adapter_config.json", "–", "–"),
    ],
)
def test_tampering_is_caught_and_named(folder, tamper, changed, missing, added):
    tamper(folder.path)
    error = refusal(verify.directory, *folder)
    assert error.reason == "files"
    assert error.details == {"changed": changed, "missing": missing, "added": added}


def test_a_file_replaced_by_a_link_to_the_same_bytes_is_caught(folder, tmp_path):
    file = folder.path / "README.md"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert refusal(verify.directory, *folder).reason == "unsignable"


def test_names_a_stranger_chose_cannot_write_to_the_terminal(folder):
    (folder.path / "\x1b[2Jevil\n").write_bytes(b"")
    assert refusal(verify.directory, *folder).details["added"] == "?[2Jevil?"


def test_the_envelope_of_another_directory_does_not_fit(folder):
    envelope, keys = signed(canonical.json_bytes(document(folder.path.parent)))
    assert refusal(verify.directory, folder.path, envelope, keys).reason == "files"


def test_a_statement_of_another_type_is_refused(folder):
    error = refusal(verify.directory, *folder, predicate_type=statements.EVALUATION)
    assert error.reason == "predicate"


def test_a_statement_about_something_else_is_refused(folder):
    assert refusal(verify.statement, folder.envelope, folder.keys, "0" * 64).reason == "subject"


def test_a_directory_whose_statement_lists_no_files_still_verifies_and_still_catches(folder):
    envelope, keys = signed(canonical.json_bytes(document(folder.path, predicate={})))
    verify.directory(folder.path, envelope, keys)
    remove(folder.path)
    assert refusal(verify.directory, folder.path, envelope, keys).reason == "files"


def test_one_file_verifies_with_an_envelope_kept_elsewhere(folder):
    file = folder.path / "README.md"
    subject = [{"name": "README.md", "digest": {"sha256": canonical.manifest(folder.path)[0]["sha256"]}}]
    envelope, keys = signed(canonical.json_bytes(document(folder.path, subject=subject)))
    verify.file(file, envelope, keys)
    file.write_text("no")
    assert refusal(verify.file, file, envelope, keys).reason == "subject"


@pytest.mark.parametrize(
    "changes",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": []},
        {"subject": None},
        {"subject": [{"name": "a", "digest": {"sha256": "0" * 64}}] * 2},
        {"subject": [{"name": "a", "digest": {"sha1": "0" * 40}}]},
        {"subject": [{"name": "a", "digest": {"sha256": "A" * 64}}]},
        {"subject": [{"name": 5, "digest": {"sha256": "0" * 64}}]},
        {"predicate": []},
        {"predicateType": None},
    ],
)
def test_a_signed_document_that_is_no_statement_is_refused(folder, changes):
    envelope, keys = signed(canonical.json_bytes(document(folder.path, **changes)))
    assert refusal(verify.statement, envelope, keys).reason == "statement"


@pytest.mark.parametrize("payload", [b"", b"[]", b"5", b"\xff", b'{"_type":1,"_type":2}'])
def test_signed_bytes_that_are_no_statement_are_refused(payload):
    assert refusal(verify.statement, *signed(payload)).reason == "statement"


@pytest.mark.django_db
def test_what_sign_directory_leaves_behind_verifies_without_the_database(folder):
    (folder.path / canonical.ENVELOPE_NAME).unlink()
    row = statements.sign_directory("acme", statements.ADAPTER, "acme.destek-v1", folder.path, {"base": "tiny"})
    envelope = json.loads((folder.path / canonical.ENVELOPE_NAME).read_bytes())
    found = verify.directory(folder.path, envelope, {row.key.key_id: row.key.public_key})
    assert found["predicate"]["base"] == "tiny"
    assert (row.subject_digest, row.scope, row.envelope) == (verify.digest_of(found), "acme", envelope)
    assert [path.name for path in folder.path.parent.iterdir()] == ["adapter"]


@pytest.mark.django_db
@pytest.mark.parametrize(("digest", "predicate"), [("0" * 63, {}), ("A" * 64, {}), ("0" * 64, {"x": float("nan")})])
def test_what_cannot_be_said_exactly_is_not_signed(digest, predicate):
    with pytest.raises(ValueError):  # noqa: PT011
        statements.sign("acme", statements.ADAPTER, "a", digest, predicate)
