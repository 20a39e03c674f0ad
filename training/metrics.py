"""Statistics of evaluations, as pure functions."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # standard normal quantile of 0.975


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a share, as (low, high) in [0, 1]; of nothing it is (0, 1).

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927). Unlike the
    normal interval it stays inside [0, 1] and keeps its coverage on the few dozen pairs an evaluation has.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share")
    if n == 0:
        return 0.0, 1.0
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # rounding must not push a certain share out of its own interval
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)
