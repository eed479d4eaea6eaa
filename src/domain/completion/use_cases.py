"""The one way in for every completion: resolve, hold, call, settle."""

import asyncio
from collections.abc import Callable, Set
from dataclasses import dataclass, field, replace
from uuid import UUID

from src.domain.catalog.model import Catalog, Route
from src.domain.catalog.ports import CatalogView
from src.domain.completion.abilities import refuse_other_jobs
from src.domain.completion.answer import Answer
from src.domain.completion.answering import Answering, AnswerPorts
from src.domain.completion.caching import AnswerCache
from src.domain.completion.holding import likely_tokens, plan_hold
from src.domain.completion.idempotency import KeyTaken
from src.domain.completion.model import Call
from src.domain.identity.model import Principal
from src.domain.limits.limiter import UNLIMITED, Limiter
from src.shared.errors import NotAllowed, Unavailable

SETTLE_TIMEOUT_S = 10.0
"""How long shutdown waits at the least for answers that were cut off to be settled."""


class TaskKeeper:
    """Keeps answers alive while nobody awaits them, and ends them at shutdown."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._stops: dict[asyncio.Task[None], Callable[[], None]] = {}
        self._draining = False
        self._drained_by_s: float | None = None

    @property
    def is_draining(self) -> bool:
        return self._draining

    @property
    def running(self) -> Set[asyncio.Task[None]]:
        return self._stops.keys()

    def admit(self) -> None:
        """Raises Unavailable while shutting down, or with too many answers under way."""
        if self._draining:
            raise Unavailable("The gateway is shutting down; try again in a moment.")
        if len(self._stops) >= self._most:
            raise Unavailable(f"{self._most} answers are under way; try again in a moment.")

    def keep(self, task: "asyncio.Task[None]", stop: Callable[[], None]) -> None:
        """Hold on to a task until it is done. `stop` makes it end soon, its settlement included."""
        self._stops[task] = stop
        task.add_done_callback(self._stops.pop)

    def stop_admitting(self) -> None:
        """From now on every new call is refused."""
        self._draining = True

    def begin_drain(self, timeout_s: float) -> float:
        """Refuse new calls and cut off those that outlast the time, which runs from the first call of this on.

        Returns how much of it is left.
        """
        self._draining = True
        loop = asyncio.get_running_loop()
        if self._drained_by_s is None:
            self._drained_by_s = loop.time() + timeout_s
            loop.call_at(self._drained_by_s, self._stop_all)
        return max(0.0, self._drained_by_s - loop.time())

    async def drain(self, timeout_s: float) -> None:
        """Wait for running answers; those that outlast the time are cut off, settled for what they delivered."""
        left_s = self.begin_drain(timeout_s)
        if self._stops:
            await asyncio.wait(set(self._stops), timeout=left_s)
        self._stop_all()
        if self._stops:
            await asyncio.wait(set(self._stops), timeout=max(timeout_s, SETTLE_TIMEOUT_S))

    def _stop_all(self) -> None:
        for stop in tuple(self._stops.values()):
            stop()


class Running:
    """The answers that this process is generating, by the ids of their holds and of their messages."""

    def __init__(self) -> None:
        self._answers: dict[UUID, Answering] = {}

    def find(self, answer_id: UUID | None) -> Answering | None:
        """The answer, where it is generated here and now."""
        return None if answer_id is None else self._answers.get(answer_id)

    def add(self, answering: Answering, task: "asyncio.Task[None]") -> None:
        """Remember it until its task is done."""
        names = [answering.id, *([answering.call.message_id] if answering.call.message_id else [])]
        self._answers.update((name, answering) for name in names)
        task.add_done_callback(lambda _: [self._answers.pop(name, None) for name in names])


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionPorts:
    """What completions are made with."""

    answers: AnswerPorts
    catalog: CatalogView
    keeper: TaskKeeper
    cache: AnswerCache
    limiter: Limiter
    running: Running = field(default_factory=Running)


def resolve(catalog: Catalog, principal: Principal, name: str | None) -> Route:
    """The route of a public name, for this principal.

    Raises NotFound for an unknown model, NotAllowed where the API key is scoped to others.
    """
    chosen = catalog.name_or_default(name)
    if not principal.may_use_model(chosen):
        raise NotAllowed(f"This API key may not use the model {chosen[:200]!r}.", param="model")
    return catalog.route(chosen)


async def begin(call: Call, ports: CompletionPorts) -> Answer:
    """The answer from the cache; else hold the worst case and start generating: that goes on in a task of its own.

    Raises LimitReached, QuotaExceeded or Unavailable, InvalidRequest for a model that is for something else, and what
    failed for an identical call that was waited for; then nothing was called and nothing is owed.
    """
    refuse_other_jobs(call.route, call.chat)
    ports.keeper.admit()
    permit = await ports.limiter.admit(
        call.principal, call.route.name, lambda: likely_tokens(call, ports.answers.meter)
    )
    if permit is not UNLIMITED:
        call = replace(call, permit=permit)
    try:
        answer = await ports.cache.answered(call, lambda asked: _generating(asked, ports))
    except KeyTaken:  # it repeats another, which counts
        await permit.undo()
        raise
    except BaseException:
        await permit.end(0)
        raise
    if not isinstance(answer, Answering):
        await permit.end(0)
    return answer


async def _generating(call: Call, ports: CompletionPorts) -> Answering:
    ports.keeper.admit()  # others' answers may have been waited for
    answers = ports.answers
    plan = await plan_hold(call, answers.meter, answers.clock, answers.holding)
    hold = await answers.ledger.open(plan.request, call.opening)
    answering = Answering(call, hold, plan, ports.catalog.current().providers, answers)
    task = answering.start()
    ports.keeper.keep(task, lambda: answering.cancel(_shut_down()))
    ports.running.add(answering, task)
    return answering


def _shut_down() -> Unavailable:
    return Unavailable(
        "The gateway shut down before the answer was complete; what was delivered is stored and charged."
    )
