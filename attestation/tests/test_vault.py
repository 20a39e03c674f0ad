"""What is sealed opens under its own master key, purpose and context, and nowhere else."""

import pytest

from attestation import vault


def test_it_opens_where_it_was_sealed_and_nowhere_else(settings):
    sealed = vault.seal("webhooks", "acme", b"secret")
    assert b"secret" not in sealed
    assert vault.seal("webhooks", "acme", b"secret") != sealed
    assert vault.unseal("webhooks", "acme", sealed) == b"secret"
    tampered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for wrong in (("replies", "acme", sealed), ("webhooks", "globex", sealed), ("webhooks", "acme", tampered)):
        with pytest.raises(vault.Locked):
            vault.unseal(*wrong)
    for cut in (b"", sealed[:12], sealed[:5]):
        with pytest.raises(vault.Locked):
            vault.unseal("webhooks", "acme", cut)
    settings.MASTER_KEY = "another"
    with pytest.raises(vault.Locked):
        vault.unseal("webhooks", "acme", sealed)
