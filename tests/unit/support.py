"""Fakes for the domain: a ledger over the real Book, scripted models, a meter that counts words, a dialog store."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

from src.domain.catalog.model import CachePolicy, Catalog, Model, Price, Provider, ProviderKind, Route, Usage
from src.domain.completion.answering import AnswerPorts
from src.domain.completion.caching import SharedAnswers
from src.domain.completion.deltas import TextDelta
from src.domain.completion.fallback import Routing
from src.domain.completion.model import (
    Call,
    ChatMessage,
    ChatRequest,
    ChatRole,
    Finished,
    FinishReason,
    Reply,
    UpstreamEvent,
    UpstreamRequest,
)
from src.domain.completion.use_cases import CompletionPorts, TaskKeeper
from src.domain.dialogs.model import (
    AnswerEnded,
    Dialog,
    DialogAdded,
    DialogKind,
    Exchange,
    Message,
    MessageRole,
    MessagesAdded,
)
from src.domain.dialogs.use_cases import DialogPorts
from src.domain.identity.model import Principal
from src.domain.ledger.book import Book
from src.domain.ledger.model import (
    Account,
    Closed,
    Closing,
    Hold,
    HoldId,
    HoldRequest,
    HoldState,
    Record,
    Renewal,
    Scope,
    Unit,
    UsageRecord,
)
from src.domain.ledger.quotas import Adjustment, QuotaKey
from src.domain.limits.limiter import Limiter
from src.domain.limits.model import RateLimit, RateLimits
from src.domain.routing.board import Board
from src.domain.routing.retry import RetryBudget, RetryPolicy
from src.integrations.buckets.memory import MemoryBuckets
from src.shared.errors import NotFound
from src.shared.money import Rate, rate_from_usd
from src.shared.pages import Page, PageRequest
from tests.makers import NOW, make_tenant, make_user

PROMPT_OVERHEAD = 10
USAGE = Usage(input_tokens=5, output_tokens=2)
DONE = Finished(reason=FinishReason.STOP, usage=USAGE, upstream_model="fast-2026")


def usd(amount: float) -> Rate:
    return rate_from_usd(amount)


def make_principal(**given: Any) -> Principal:
    tenant = given.pop("tenant", None) or make_tenant()
    user = given.pop("user", None) or make_user(tenant)
    return Principal(**{"tenant": tenant, "user": user, "role": user.role, **given})


def make_model(**given: Any) -> Model:
    name = given.get("name", "fast")
    price = Price(input=usd(1), output=usd(2))
    base = {"name": name, "provider": "openai", "upstream": f"{name}-upstream", "prices": (price,)}
    return Model(**{**base, "context_window": 1000, "max_output": 100, **given})


def make_catalog(*models: Model, **given: Any) -> Catalog:
    provider = Provider(name="openai", kind=ProviderKind.OPENAI)
    base = {"providers": {"openai": provider}, "models": {each.name: each for each in models}, "chains": {}}
    return Catalog(**{**base, **given})


def user_says(*texts: str, **given: Any) -> ChatRequest:
    return ChatRequest(messages=tuple(ChatMessage(role=ChatRole.USER, text=text) for text in texts), **given)


def make_call(*models: Model, **given: Any) -> Call:
    route = Route(name=given.pop("name", "fast"), models=models or (make_model(),))
    base = {"principal": make_principal(), "route": route, "chat": user_says("how are you", stream=True)}
    return Call(**{**base, "endpoint": "messages", "request_id": "req-1", **given})


def hold_for(call: Call, **given: Any) -> Hold:
    base = {"id": HoldId(call.principal.user_id), "tenant_id": call.principal.tenant_id, "api_key_id": None}
    base |= {"user_id": call.principal.user_id, "model": call.route.name, "request_id": call.request_id, "lines": ()}
    return Hold(**{**base, "output_cap": None, "created_at": NOW, "expires_at": NOW, **given})


class WordMeter:
    """A token a word; a prompt may take ten more."""

    def count(self, text: str, model: Model) -> int:
        return len(text.split())

    async def prompt_bound(self, chat: ChatRequest, model: Model) -> int:
        return sum(self.count(message.text, model) for message in chat.messages) + PROMPT_OVERHEAD

    async def prompt_estimate(self, chat: ChatRequest, model: Model) -> int:
        return sum(self.count(message.text, model) for message in chat.messages)


class Gate:
    """A place in a script where the model waits until it is let on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self.opened.wait()


Step = UpstreamEvent | Gate | Exception


class ScriptedModel:
    """Plays one script a call: texts, events, gates to wait at and errors to raise. The last one is played for ever."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self._scripts = deque(scripts)
        self.requests: list[UpstreamRequest] = []
        self.left = 0

    async def complete(self, request: UpstreamRequest) -> Reply:
        events = [event async for event in self.stream(request)]
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        return Reply(text=text, finished=next(event for event in events if isinstance(event, Finished)))

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        self.requests.append(request)
        script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Gate):
                    await step.wait()
                else:
                    yield step
        finally:
            self.left += 1


class FakeUpstreams:
    """Scripted models by name; one that is not there raises KeyError, as a fault of ours would."""

    def __init__(self, **models: ScriptedModel | Exception) -> None:
        self.models = models

    def chat_model(self, model: Model, provider: Provider) -> ScriptedModel:
        found = self.models[model.name]
        if isinstance(found, Exception):
            raise found
        return found

    def is_ready(self, provider: Provider) -> bool:
        return True

    async def close(self) -> None:
        return None


def answers(*texts: str, finished: Finished = DONE) -> list[Step]:
    return [*(TextDelta(text) for text in texts), finished]


class FakeLedger:
    """The ledger over one Book. `failure` is raised instead of closing; `gate` is waited at before closing."""

    def __init__(self, *accounts: Account) -> None:
        self.book = Book(accounts)
        self.requests: list[HoldRequest] = []
        self.renewals: list[Renewal] = []
        self.records: list[Record] = []
        self.failure: Exception | None = None
        self.gate: Gate | None = None

    async def open(self, request: HoldRequest, records: Sequence[Record] = ()) -> Hold:
        self.requests.append(request)
        hold = self.book.open(request)
        self.records += records
        return hold

    async def renew(self, renewal: Renewal, records: Sequence[Record] = ()) -> Hold:
        renewed = self.book.renew(renewal)
        self.renewals.append(renewal)
        self.records += records
        return renewed

    async def close(self, closing: Closing, records: Sequence[Record] = ()) -> Closed:
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        closed = self.book.close(closing)
        self.records += records
        return closed

    async def record(self, records: Sequence[Record]) -> None:
        self.records += records

    def top_up(self, principal: Principal, amount: int, unit: Unit = Unit.TOKENS) -> Account:
        key = QuotaKey(tenant_id=principal.tenant_id, scope=Scope.USER, scope_id=principal.user_id, unit=unit)
        return self.book.adjust(Adjustment(key=key, amount=amount, at=NOW))

    @property
    def states(self) -> list[HoldState]:
        """How the holds were closed."""
        return [closing.state for closing in self.book.closed]

    @property
    def usage_rows(self) -> list[UsageRecord]:
        return [record for record in self.records if isinstance(record, UsageRecord)]


class FakeView:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def current(self) -> Catalog:
        return self.catalog

    async def refresh(self) -> None:
        return None


def make_routing(upstreams: FakeUpstreams, *, retries: int = 0, **given: Any) -> Routing:
    """Without pauses; a dropped connection may be retried any number of times."""
    retry = RetryPolicy(**{"most": retries, "first_pause_s": 0.0, "share": 1.0, **given})
    return Routing(upstreams=upstreams, board=Board(), retry=retry, budget=RetryBudget(retry, 0.0))


class FakeRateLimitsView:
    """Limits as they are given."""

    def __init__(self, *limits: RateLimit) -> None:
        self._limits = RateLimits(limits)

    def current(self) -> RateLimits:
        return self._limits

    async def refresh(self) -> None:
        return None


def answer_ports(ledger: FakeLedger, upstreams: FakeUpstreams, **given: Any) -> AnswerPorts:
    base = {"ledger": ledger, "routing": make_routing(upstreams), "meter": WordMeter(), "clock": lambda: NOW}
    return AnswerPorts(**{**base, "total_timeout_s": 5.0, **given})


def completion_ports(
    ledger: FakeLedger,
    upstreams: FakeUpstreams,
    catalog: Catalog,
    cache: "FakeCache | None" = None,
    limiter: Limiter | None = None,
) -> CompletionPorts:
    keeper = TaskKeeper(most=100)
    return CompletionPorts(
        answers=answer_ports(ledger, upstreams),
        catalog=FakeView(catalog),
        keeper=keeper,
        cache=SharedAnswers(
            cache or FakeCache(),
            ledger=ledger,
            clock=lambda: NOW,
            default=CachePolicy(ttl_s=60),
            patience_s=5,
            admit=keeper.admit,
        ),
        limiter=limiter or Limiter(FakeRateLimitsView(), MemoryBuckets()),
    )


class FakeDialogs:
    """Dialogs and messages in memory; what the ledger recorded about them is read from the ledger."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self._dialogs: dict[UUID, Dialog] = {}
        self.given: list[Message] = []

    async def add(self, dialog: Dialog) -> None:
        self._dialogs[dialog.id] = dialog

    def stored(self) -> dict[UUID, Message]:
        """Every message as it stands."""
        found = {message.id: message for message in self.given}
        for record in self._ledger.records:
            if isinstance(record, MessagesAdded):
                found |= {message.id: message for message in record.messages}
            elif isinstance(record, AnswerEnded):
                found[record.answer.id] = record.answer
        return found

    async def dialog(self, dialog_id: UUID, user_id: UUID) -> Dialog | None:
        added = {each.dialog.id: each.dialog for each in self._ledger.records if isinstance(each, DialogAdded)}
        found = (self._dialogs | added).get(dialog_id)
        if found is None or found.user_id != user_id:
            return None
        heads = [
            record.answer.id
            for record in self._ledger.records
            if isinstance(record, AnswerEnded) and record.becomes_head and record.answer.dialog_id == dialog_id
        ]
        return replace(found, head_id=heads[-1]) if heads else found

    async def chat_dialog(self, user_id: UUID) -> Dialog | None:
        own = (each for each in self._dialogs.values() if each.user_id == user_id and each.kind is DialogKind.CHAT)
        return next(own, None)

    async def dialogs(self, user_id: UUID, page: PageRequest, *, search: str | None) -> Page[Dialog]:
        own = [each for each in self._dialogs.values() if each.user_id == user_id and each.kind is DialogKind.DIALOG]
        return Page(rows=own[::-1], has_more=False)

    async def update(self, dialog: Dialog) -> None:
        self._dialogs[dialog.id] = dialog

    async def delete(self, dialog_id: UUID, user_id: UUID) -> bool:
        if await self.dialog(dialog_id, user_id) is None:
            return False
        del self._dialogs[dialog_id]
        return True

    async def message(self, dialog_id: UUID, message_id: UUID) -> Message | None:
        found = self.stored().get(message_id)
        return found if found is not None and found.dialog_id == dialog_id else None

    async def messages(self, dialog_id: UUID, page: PageRequest) -> Page[Message]:
        return Page(rows=[each for each in self.stored().values() if each.dialog_id == dialog_id], has_more=False)

    async def path(self, dialog_id: UUID, leaf_id: UUID, *, limit: int) -> list[Message]:
        path: list[Message] = []
        message = await self.message(dialog_id, leaf_id)
        while message is not None:
            path.insert(0, message)
            message = self.stored().get(message.parent_id) if message.parent_id else None
        return path[-limit:]

    async def exchanges(self, user_id: UUID, *, limit: int) -> list[Exchange]:
        stored = self.stored()
        pairs = [
            Exchange(question=stored[each.parent_id], answer=each, user_external_id="me")
            for each in stored.values()
            if each.role is MessageRole.ASSISTANT and each.parent_id
        ]
        return pairs[::-1][:limit]


class FakeUnitOfWork:
    """A unit of work over dialogs only; remembers whether it was committed."""

    def __init__(self, dialogs: FakeDialogs) -> None:
        self.dialogs = dialogs
        self.commits = 0

    async def commit(self) -> None:
        self.commits += 1


def dialog_ports(dialogs: FakeDialogs, catalog: Catalog) -> DialogPorts:
    @asynccontextmanager
    async def open_uow(tenant_id: UUID | None) -> AsyncIterator[FakeUnitOfWork]:
        if tenant_id is None:
            raise NotFound("Dialogs belong to a tenant.")
        yield FakeUnitOfWork(dialogs)

    return DialogPorts(open_uow=open_uow, open_reading=open_uow, catalog=FakeView(catalog), clock=lambda: NOW)


class FakeCache:
    """Answers by key and whose turn it is to make them, in memory; leases do not end by themselves."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[bytes, float]] = {}
        self.turns: dict[str, str] = {}

    async def seek(self, key: str, seeker: str, lease_s: float) -> bytes | bool:
        if key in self.kept:
            return self.kept[key][0]
        return self.turns.setdefault(key, seeker) == seeker

    async def get(self, key: str) -> bytes | None:
        return self.kept[key][0] if key in self.kept else None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self.kept[key] = (value, ttl_s)

    async def leave(self, key: str, seeker: str) -> None:
        if self.turns.get(key) == seeker:
            del self.turns[key]

    async def close(self) -> None:
        return None
