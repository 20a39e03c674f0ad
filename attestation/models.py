"""Keys and signed statements. Knows no tenant: `scope` is an opaque string, because evidence outlives its subject."""

from __future__ import annotations

import uuid

from django.db import models


class SigningKey(models.Model):
    """An Ed25519 key pair; the private half is encrypted by the master key (`keyring`)."""

    key_id = models.CharField(max_length=64, primary_key=True)  # SHA-256 of the raw public key, hex
    public_key = models.CharField(max_length=64)  # raw 32 bytes, hex
    encrypted_private_key = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    is_current = models.BooleanField(default=False)  # signs new statements

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["is_current"], condition=models.Q(is_current=True), name="one_current_key"),
            models.CheckConstraint(
                condition=models.Q(is_current=False) | models.Q(revoked_at=None), name="revoked_key_is_not_current"
            ),
        ]

    def __str__(self) -> str:
        return self.key_id[:12]


class Statement(models.Model):
    """One in-toto Statement v1 in a DSSE envelope. Append-only."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    scope = models.CharField(max_length=64, db_index=True)
    predicate_type = models.CharField(max_length=200)
    subject_name = models.CharField(max_length=200)
    subject_digest = models.CharField(max_length=64, db_index=True)  # SHA-256, hex
    envelope = models.JSONField()
    key = models.ForeignKey(SigningKey, on_delete=models.PROTECT, related_name="statements")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return f"{self.predicate_type} {self.subject_name}"
