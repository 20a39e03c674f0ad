"""Statistics against published values."""

from __future__ import annotations

import pytest

from training import metrics


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (0, 0, 0, 1)],
)
def test_wilson_agrees_with_the_literature(successes, n, low, high):
    """81 of 263 is the worked example of Newcombe, Statistics in Medicine 17 (1998), table I."""
    assert metrics.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_refuses_what_is_no_share():
    with pytest.raises(ValueError, match="no share"):
        metrics.wilson(11, 10)
