"""A tenant's address is ASCII whatever it is called; what it goes through is recorded and reaches the gateways."""

import pytest

from tenants import costs, keys, tenancy
from tenants.models import AuditEntry, Member, Tenant

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Çağrı Merkezi İzmir", "cagri-merkezi-izmir"),
        ("ırmak", "irmak"),
        ("IĞDIR Şube", "igdir-sube"),
        ("  Öz & Üç_A.Ş. ", "oz-uc-as"),
        ("Kâğıt", "kagit"),
        ("x" * 70, "x" * 50),
    ],
)
def test_slugs_know_turkish(name, slug):
    assert tenancy.slug_of(name) == slug
    assert tenancy.create(None, name).slug == slug


def test_a_tenant_begins_with_an_owner_and_an_entry(cast):
    made = tenancy.create(cast.operator, "Çağrı Merkezi", time_zone="Asia/Tokyo", owner=cast.outsider)
    assert Member.objects.get(tenant=made).role == "owner"
    entry = AuditEntry.objects.get(action="tenant.create", tenant=made, actor=cast.operator)
    assert entry.after == {"name": "Çağrı Merkezi", "slug": "cagri-merkezi", "time_zone": "Asia/Tokyo"}


@pytest.mark.parametrize("slug", ["admin", "adapter", "v1", "Büyük", "a_b", "-a", "a--b", "a" * 51, "日本"])
def test_slugs_that_no_address_can_have(slug):
    with pytest.raises(tenancy.BadSlug):
        tenancy.create(None, "x", slug=slug)


def test_names_that_make_no_slug(cast):
    with pytest.raises(tenancy.BadSlug):
        tenancy.create(None, "日本")
    with pytest.raises(tenancy.BadName):
        tenancy.create(None, "  ")
    with pytest.raises(tenancy.SlugTaken, match="acme"):
        tenancy.create(None, "ACME")
    assert Tenant.objects.count() == 2


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "europe/istanbul", "localtime"])
def test_a_zone_that_is_no_place(cast, zone):
    with pytest.raises(tenancy.UnknownZone):
        tenancy.set_time_zone(cast.acme, zone, cast.owner)


def test_the_month_follows_the_zone(cast):
    before = cast.acme.epoch
    tenancy.set_time_zone(cast.acme, "Pacific/Kiritimati", cast.owner)
    east = costs.today(cast.acme)
    tenancy.set_time_zone(cast.acme, "Pacific/Pago_Pago", cast.owner)
    assert (east - costs.today(cast.acme)).days in {1, 2}  # they are 25 hours apart
    assert Tenant.objects.get(slug="acme").epoch == before + 2


def test_suspended_resumed_closed(cast):
    _key, text = keys.create(cast.acme, "x")
    tenancy.suspend(cast.acme, cast.operator)
    assert keys.authenticate(text) is None
    tenancy.resume(cast.acme, cast.operator)
    assert keys.authenticate(text)
    tenancy.close(cast.acme, cast.operator)
    assert keys.authenticate(text) is None
    for verb in (tenancy.resume, tenancy.suspend):
        with pytest.raises(tenancy.WrongStatus):
            verb(cast.acme, cast.operator)
    with pytest.raises(tenancy.WrongStatus):
        tenancy.rename(cast.acme, "Yeni", cast.operator)
    changes = AuditEntry.objects.filter(action="tenant.change").order_by("pk").values_list("before", "after")
    steps = ["active", "suspended", "active", "closed"]
    assert list(changes) == [({"status": a}, {"status": b}) for a, b in zip(steps, steps[1:], strict=False)]


def test_the_same_again_is_no_change(cast):
    epoch = cast.acme.epoch
    tenancy.rename(cast.acme, " Acme ", cast.owner)
    assert Tenant.objects.get(slug="acme").epoch == epoch
    tenancy.rename(cast.acme, "Acme İstanbul", cast.owner)
    assert Tenant.objects.get(slug="acme").name == "Acme İstanbul"
    assert AuditEntry.objects.get().after == {"name": "Acme İstanbul"}
