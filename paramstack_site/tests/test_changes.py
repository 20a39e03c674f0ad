"""An audit entry's before and after, told fact by fact."""

import pytest
from django.utils import translation

from paramstack_site.templatetags.changes import changes
from tenants.models import AuditEntry

pytestmark = pytest.mark.django_db


def entry(tenant, action, before=None, after=None):
    return AuditEntry.objects.create(tenant=tenant, action=action, subject="key abc", before=before, after=after)


@translation.override("en")
def test_before_and_after_are_told_fact_by_fact(cast):
    told = changes(
        entry(
            cast.acme,
            "quota.set",
            {"requests_per_minute": 60, "tokens_per_minute": 9},
            {"requests_per_minute": 120, "tokens_per_minute": 9},
        )
    )
    assert [(str(name), *rest) for name, *rest in told] == [("requests per minute", "60", "120")]
    budget = changes(entry(cast.acme, "budget.set", 100_000_000_000, 250_500_000_000))
    assert [(str(name), *rest) for name, *rest in budget] == [("", "$100.00", "$250.50")]
    role = changes(entry(cast.acme, "member.change", {"role": "owner"}, {"role": "auditor"}))
    assert (str(role[0][1]), str(role[0][2])) == ("Owner", "Auditor")
    made = changes(entry(cast.acme, "key.create", None, {"name": "web", "expires_at": None, "scopes": ["usage"]}))
    assert [(str(name), *rest) for name, *rest in made] == [("name", "", "web"), ("rights", "", "usage")]
    gone = changes(entry(cast.acme, "webhook.remove", {"url": "https://a.example"}, None))
    assert [rest for _name, *rest in gone] == [["https://a.example", "none"]]
    share = changes(entry(cast.acme, "rollout.weight", {"weight_bp": 1000}, {"weight_bp": 2500}))
    assert share[0][1:] == ("10%", "25%")
    assert changes(entry(cast.acme, "key.revoke")) == []
    assert changes(entry(cast.acme, "odd.thing", {"unheard_of": True}, {"unheard_of": False}))[0] == (
        "unheard_of",
        "yes",
        "no",
    )
