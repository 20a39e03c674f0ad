"""Who calls, what they may use, and what it cost: the tables of this app, by room."""

from tenants.models.ledger import (
    LedgerBatch,
    LedgerHead,
    LedgerProof,
    RefusalCount,
    UsageDay,
    UsageEndUser,
    UsageEvent,
    UsageMonth,
    UsageTotal,
)
from tenants.models.limits import (
    NANO,
    APIKey,
    APIKeyQuerySet,
    Budget,
    BudgetAlert,
    IdempotentReply,
    Price,
    Quota,
    Webhook,
    default_scopes,
)
from tenants.models.people import AuditEntry, Invitation, Member, Tenant, TenantQuerySet, User

__all__ = [
    "APIKey",
    "APIKeyQuerySet",
    "AuditEntry",
    "Budget",
    "BudgetAlert",
    "IdempotentReply",
    "Invitation",
    "LedgerBatch",
    "LedgerHead",
    "LedgerProof",
    "Member",
    "NANO",
    "Price",
    "Quota",
    "RefusalCount",
    "Tenant",
    "TenantQuerySet",
    "UsageDay",
    "UsageEndUser",
    "UsageEvent",
    "UsageMonth",
    "UsageTotal",
    "User",
    "Webhook",
    "default_scopes",
]
