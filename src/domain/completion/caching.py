"""The response cache: answers that were given are given again, and identical questions at once are one call."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

from src.domain.catalog.model import CachePolicy
from src.domain.completion.answer import Answer, CachedAnswer
from src.domain.completion.answering import Answering
from src.domain.completion.cache_entry import Entry, cache_key, entry_of, policy_of, unpacked
from src.domain.completion.model import CacheUse, Call
from src.domain.completion.ports import ResponseCache
from src.domain.completion.similar import Question, SimilarQuestions, question_of
from src.domain.ledger.model import CallStatus
from src.domain.ledger.ports import Ledger
from src.shared.clock import Clock
from src.shared.errors import GatewayError, InvalidRequest, ProvidersFailed
from src.shared.ids import new_id

MOST_FAILURES = 2
"""How often a question waits for others' calls that fail, before it has failed too: no wait is endless."""

LEASE_S = 10.0
"""How long the other replicas wait for one that has died while it made an answer."""

POLL_S = (0.05, 0.2)
"""The least and the longest pause in looking for an answer that another replica makes."""

CLOSE_TIMEOUT_S = 5.0

Start = Callable[[Call], Awaitable[Answering]]
"""Hold and generate."""


class AnswerCache(Protocol):
    """What stands between a call and its model."""

    async def answered(self, call: Call, start: Start) -> Answer:
        """The answer: what was kept, stored with the call's records, or what `start` makes.

        Raises what `start` raises, what failed for whoever asked the same at the same time, and KeyTaken, NotFound or
        Unavailable where the records of a kept answer cannot be stored.
        """
        ...


class Vain(Enum):
    """A flight that brought nothing: to be tried `AGAIN` (by one for all), or by everybody `ALONE`."""

    AGAIN = "again"
    ALONE = "alone"


Landed = Entry | GatewayError | Vain


@dataclass(eq=False, slots=True)
class _Flight:
    """One call for identical questions in this process. `id` is what the other replicas know it by.

    `use` says how those who join it came by its answer.
    """

    landed: "asyncio.Future[Landed]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    id: str = field(default_factory=lambda: new_id().hex)
    answering: Answering | None = None
    is_joined: bool = False
    use: CacheUse = CacheUse.JOINED

    async def join(self) -> Landed:
        """Wait for it; from now on it does not end because its first caller leaves."""
        self.is_joined = True
        self._keep_going()
        return await asyncio.shield(self.landed)

    def take_off(self, answering: Answering) -> None:
        """It is generated now."""
        self.answering = answering
        self._keep_going()

    def land(self, landed: Landed) -> None:
        """Tell everybody; only the first word counts."""
        if not self.landed.done():
            self.landed.set_result(landed)

    def _keep_going(self) -> None:
        if self.is_joined and self.answering is not None:
            self.answering.detach()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A call whose answer may be kept."""

    call: Call
    key: str
    ttl_s: float
    start: Start
    question: Question | None

    async def begun(self) -> Answering:
        return await self.start(self.call)


class SharedAnswers:
    """Answers in a cache. `default` is the policy of requests that wish it for models without one.

    Nobody waits for another replica's call longer than `patience_s`; `admit` raises where the process takes no calls.
    Without `similar`, only equal questions get the same answer, whatever the policies say.
    """

    def __init__(
        self,
        store: ResponseCache,
        *,
        ledger: Ledger,
        clock: Clock,
        default: CachePolicy,
        patience_s: float,
        admit: Callable[[], None],
        similar: SimilarQuestions | None = None,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._default = default
        self._patience_s = patience_s
        self._admit = admit
        self._similar = similar
        self._under_way: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def answered(self, call: Call, start: Start) -> Answer:
        """See AnswerCache."""
        policy = policy_of(call, self._default)
        if policy is None:
            return await start(call)
        call = replace(call, cache_use=CacheUse.MISS)
        question = question_of(call, policy) if self._similar else None
        asked = _Asked(call=call, key=cache_key(call, policy), ttl_s=policy.ttl_s, start=start, question=question)
        return await (self._alone(asked) if call.cache.fresh else self._shared(asked))

    async def close(self) -> None:
        """Wait until what has ended is kept."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()
        if self._similar is not None:
            self._similar.close()
        await self._store.close()

    async def _shared(self, asked: _Asked) -> Answer:
        failures = 0
        while (flight := self._under_way.get(asked.key)) is not None:
            landed = await flight.join()
            if isinstance(landed, Entry):
                return await self._given(asked, landed, flight.use)
            failures += 1
            if landed is Vain.ALONE or failures == MOST_FAILURES:
                if isinstance(landed, GatewayError):
                    raise landed
                return await self._alone(asked)
        return await self._led(asked)

    async def _led(self, asked: _Asked) -> Answer:
        """Find the answer, or make it, for everybody who asks meanwhile."""
        flight = self._under_way[asked.key] = _Flight()
        try:
            found, use = await self._found(asked.key, flight), CacheUse.HIT
            if found is None:
                found, use = await self._near(asked.question), CacheUse.SEMANTIC
            if found is None:
                flight.take_off(answering := await asked.begun())
        except BaseException:
            self._later(self._end(asked.key, flight, Vain.AGAIN))
            raise
        if found is None:
            self._later(self._watch(asked, flight, answering))
            return answering
        if use is CacheUse.SEMANTIC:
            flight.use = use
            self._later(self._end(asked.key, flight, found))
        else:
            self._forget(asked.key, flight, found)
        return await self._given(asked, found, use)

    async def _alone(self, asked: _Asked) -> Answer:
        answering = await asked.begun()
        self._later(self._keep(asked, answering))
        return answering

    async def _given(self, asked: _Asked, entry: Entry, use: CacheUse) -> Answer:
        """The call ends as it begins: everything that belongs to it is stored at once, and nothing is held."""
        call = asked.call
        outcome = entry.outcome(call, use, self._clock())
        records = (*call.opening, *call.closing(outcome))
        if records:
            await self._ledger.record(records)
        return CachedAnswer(call, outcome)

    async def _found(self, key: str, flight: _Flight) -> Entry | None:
        """What is kept, once no other replica makes it any more; None where it is to be made here."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._patience_s
        while True:
            found = await self._store.seek(key, flight.id, LEASE_S)
            if isinstance(found, bytes):
                return unpacked(found)
            if found or loop.time() > deadline_s:
                return None
            await asyncio.sleep(random.uniform(*POLL_S))
            self._admit()

    async def _near(self, question: Question | None) -> Entry | None:
        """What is kept of the most similar question."""
        if question is None or self._similar is None:
            return None
        key = await self._similar.nearest(question)
        if key is None:
            return None
        kept = await self._store.get(key)
        entry = None if kept is None else unpacked(kept)
        if entry is None:
            self._similar.forget(question, key)
        return entry

    async def _watch(self, asked: _Asked, flight: _Flight, answering: Answering) -> None:
        """Keep the turn while the answer is made, then share it."""
        landed: Landed = Vain.AGAIN
        ending = asyncio.ensure_future(_ended(answering))
        try:
            while not (await asyncio.wait({ending}, timeout=LEASE_S / 3))[0]:
                await self._store.seek(asked.key, flight.id, LEASE_S)
            landed = ending.result()
            flight.land(landed)
            await self._put(asked, landed)
        finally:
            ending.cancel()
            await self._end(asked.key, flight, landed)

    async def _keep(self, asked: _Asked, answering: Answering) -> None:
        await self._put(asked, await _ended(answering))

    async def _put(self, asked: _Asked, landed: Landed) -> None:
        if isinstance(landed, Entry):
            await self._store.put(asked.key, landed.packed(), asked.ttl_s)
            if asked.question is not None and self._similar is not None:
                await self._similar.learn(asked.question, asked.key, asked.ttl_s)

    async def _end(self, key: str, flight: _Flight, landed: Landed) -> None:
        self._forget(key, flight, landed)
        await self._store.leave(key, flight.id)

    def _forget(self, key: str, flight: _Flight, landed: Landed) -> None:
        del self._under_way[key]
        flight.land(landed)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="response cache")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _ended(answering: Answering) -> Landed:
    """What its end means to others. A failure of the provider's, or of the question itself, is theirs too."""
    try:
        outcome = await answering.outcome()
    except GatewayError:  # it could not be stored
        return Vain.AGAIN
    if outcome.status is CallStatus.COMPLETED:
        entry = None if answering.is_stopping else entry_of(answering.call, outcome)
        return entry or Vain.ALONE
    return outcome.error if isinstance(outcome.error, ProvidersFailed | InvalidRequest) else Vain.AGAIN
