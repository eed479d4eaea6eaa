"""Money is an integer: micro-USD, and rates in micro-USD per million tokens. It is rounded once, up."""

from decimal import Decimal, DecimalException
from typing import NewType

MicroDollars = NewType("MicroDollars", int)
"""A millionth of a US dollar."""

Rate = NewType("Rate", int)
"""Micro-USD per million tokens."""

PER_MILLION = 1_000_000


def rate_from_usd(usd_per_million: str | int | float | Decimal) -> Rate:
    """USD per million tokens -> micro-USD per million tokens.

    Raises ValueError for what is negative, not finite, or finer than a micro-dollar per million tokens.
    """
    try:
        exact = Decimal(str(usd_per_million)) * PER_MILLION
    except DecimalException:
        raise ValueError(f"{usd_per_million!r} is no amount of money") from None
    if not exact.is_finite() or exact < 0 or exact != exact.to_integral_value():
        raise ValueError(f"{usd_per_million!r} USD per million tokens is not a whole, positive number of micro-dollars")
    return Rate(int(exact))


def rounded_up(micro_usd_times_million: int) -> MicroDollars:
    """A sum of tokens times rates, as whole micro-dollars."""
    return MicroDollars(-(-micro_usd_times_million // PER_MILLION))
