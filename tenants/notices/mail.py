"""Mail to people in their own languages: of a budget alert to the tenant's owners, of the platform to its operators."""

from __future__ import annotations

from collections.abc import Callable

from django.core.mail import EmailMessage, get_connection
from django.utils import translation
from django.utils.translation import gettext as _

from tenants.models import BudgetAlert, Member, User
from tenants.refusals import wording


def send(alert: BudgetAlert) -> int:
    """Answers how many were sent, 0 if no owner has an address. Raises OSError; then some may have been sent."""
    owners = Member.objects.filter(tenant=alert.tenant, role=Member.Role.OWNER, user__is_active=True)
    found = owners.exclude(user__email="").order_by("pk").values_list("user__email", "user__language")
    mails = [_mail(alert, address, language) for address, language in found]
    return (get_connection().send_messages(mails) or 0) if mails else 0


def tell_operators(write: Callable[[], tuple[str, str]]) -> int:
    """What `write` says, subject and text; answers how many were sent, 0 if nobody has an address. Raises OSError."""
    operators = User.objects.filter(is_superuser=True, is_active=True).exclude(email="").order_by("pk")
    mails = []
    for address, language in operators.values_list("email", "language"):
        with translation.override(language):
            subject, text = write()
        mails.append(EmailMessage(subject, f"{text}\n", to=[address]))
    return (get_connection().send_messages(mails) or 0) if mails else 0


def _mail(alert: BudgetAlert, address: str, language: str) -> EmailMessage:
    with translation.override(language):
        words = {
            "tenant": " ".join(alert.tenant.name.split()),  # a header is one line
            "percent": alert.percent,
            "month": f"{alert.month[:4]}-{alert.month[4:]}",
            "spent": wording.money(alert.spent_nano),
            "budget": wording.money(alert.budget_nano),
        }
        subject = _("%(tenant)s: %(percent)s%% of the month's budget is spent") % words
        told = _("In %(month)s %(tenant)s has spent %(spent)s of its budget of %(budget)s.") % words
        if alert.percent < 100:
            meaning = _("Calls go on. When the budget is used up they are refused until the month ends.")
        else:
            meaning = _("Calls that cost more than what is left are refused until the month ends.")
        advice = _("An owner changes the budget in the console, under Settings, Limits and budget.")
    return EmailMessage(subject, f"{told}\n\n{meaning}\n{advice}\n", to=[address])
