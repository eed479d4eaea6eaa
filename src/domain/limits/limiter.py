"""Whether a call may begin now, and giving back what it did not need."""

from collections.abc import Awaitable, Callable, Sequence

from src.domain.identity.model import Principal
from src.domain.limits.model import Level, LimitName, LimitReached, Taking
from src.domain.limits.ports import Buckets, RateLimitsView
from src.shared.ids import new_id


class Permit:
    """The place of one call in its buckets; UNLIMITED has none. Ended once, the first time."""

    __slots__ = ("_buckets", "_taking", "levels")

    def __init__(self, taking: Taking | None = None, buckets: Buckets | None = None) -> None:
        self._taking = taking
        self._buckets = buckets
        self.levels: Sequence[Level] = () if taking is None else taking.levels
        """Its buckets as it found them, itself included."""

    async def end(self, tokens: int) -> None:
        """The call is over and used so many tokens."""
        await self._settle(requests=1, tokens=tokens)

    async def undo(self) -> None:
        """There was no call: it counts nowhere."""
        await self._settle(requests=0, tokens=0)

    async def _settle(self, *, requests: int, tokens: int) -> None:
        taking, self._taking = self._taking, None
        if taking is not None and self._buckets is not None:
            await self._buckets.settle(taking, requests=requests, tokens=tokens)


UNLIMITED = Permit()


class Limiter:
    """Lets calls begin, within the rate limits of whoever makes them and of the model that they name."""

    def __init__(self, limits: RateLimitsView, buckets: Buckets) -> None:
        self._limits = limits
        self._buckets = buckets

    async def admit(self, principal: Principal, model: str, tokens: Callable[[], Awaitable[int]]) -> Permit:
        """A call of the model by that name begins. `tokens`, asked where they are limited, estimates what it will use.

        Raises LimitReached; then it counts nowhere.
        """
        found = self._limits.current().of_call(principal, model)
        if not found:
            return UNLIMITED
        estimate = await tokens() if any(bucket.name is LimitName.TOKENS for bucket in found) else 0
        taking = await self._buckets.take(new_id(), found, estimate)
        if taking.is_refused:
            raise LimitReached(taking.levels)
        return Permit(taking, self._buckets)
