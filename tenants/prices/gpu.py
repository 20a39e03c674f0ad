"""What a GPU's hour makes a million tokens cost."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from django.utils.translation import gettext as _

from tenants.models import NANO, Price
from tenants.prices.problems import BadPrice

LEAST = Decimal("0.000001")


def from_gpu(
    dollars_per_hour: Decimal | str,
    input_tokens_per_second: Decimal | str,
    output_tokens_per_second: Decimal | str,
    utilisation: Decimal | str = "1",
) -> dict[str, Any]:
    """The fields of a price at which a GPU pays for itself, for `set_`; its inputs stand in `basis`.

    Throughputs are those measured while it only reads, and only writes; `utilisation` (0 to 1] is the share of each
    hour that it works for somebody. Exact decimals, rounded half up once. Raises BadPrice.
    """
    hour = _decimal(dollars_per_hour, "dollars_per_hour", Decimal(10_000))
    reads = _decimal(input_tokens_per_second, "input_tokens_per_second", Decimal(10**9))
    writes = _decimal(output_tokens_per_second, "output_tokens_per_second", Decimal(10**9))
    busy = _decimal(utilisation, "utilisation", Decimal(1))
    basis = {
        "gpu_hour_nano": int((hour * NANO).to_integral_value(ROUND_HALF_UP)),
        "input_tokens_per_second": str(reads),
        "output_tokens_per_second": str(writes),
        "utilisation": str(busy),
    }
    return {
        "kind": Price.Kind.SELF_HOSTED,
        "input_nano_per_mtok": _per_mtok(hour, reads * busy),
        "output_nano_per_mtok": _per_mtok(hour, writes * busy),
        "basis": basis,
    }


def _per_mtok(dollars_per_hour: Decimal, tokens_per_second: Decimal) -> int:
    nano = dollars_per_hour * NANO * 1_000_000 / (3600 * tokens_per_second)
    return int(nano.to_integral_value(ROUND_HALF_UP))


def _decimal(value: Decimal | str, field: str, most: Decimal) -> Decimal:
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    if not (number.is_finite() and LEAST <= number <= most):
        raise BadPrice(_("Write a number above 0, at most %(most)s.") % {"most": f"{most:,}"}, field)
    return number
