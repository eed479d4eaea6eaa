"""One question, one answer, no history: POST /chat. Answers are cached; cached ones are kept and cost nothing."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from src.domain.catalog.model import Route, Usage
from src.domain.completion.idempotency import Claim, ClaimFreed, Kept
from src.domain.completion.model import Call, ChatMessage, ChatRequest, ChatRole, Outcome, Parameters
from src.domain.completion.ports import ResponseCache
from src.domain.completion.use_cases import CompletionPorts, begin, resolve
from src.domain.dialogs.model import (
    AnswerEnded,
    Dialog,
    DialogId,
    DialogKind,
    Exchange,
    Message,
    MessagesAdded,
    MessageStatus,
    new_question,
    unanswered,
)
from src.domain.dialogs.sending import ended_answer
from src.domain.dialogs.use_cases import DialogPorts
from src.domain.identity.model import Principal, TenantId, User
from src.domain.ledger.model import CallStatus, Record
from src.shared.errors import Conflict, ProvidersFailed
from src.shared.ids import new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotPorts:
    """What one-shot questions are answered with."""

    dialogs: DialogPorts
    completions: CompletionPorts
    cache: ResponseCache
    cache_ttl_s: float
    flights: "Flights"


Landed = Mapping[str, Any] | ProvidersFailed | None
"""What a flight brought: an answer for all, a provider's failure, or nothing that concerns anybody else."""

MOST_FAILURES = 2
"""How often a question waits for others' calls that fail, before it has failed too: no wait is endless."""


class Flights:
    """One upstream call for identical questions that are asked at the same time in this process."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[Landed]] = {}

    def under_way(self, key: str) -> "asyncio.Future[Landed] | None":
        """The flight to wait for, if there is one."""
        return self._under_way.get(key)

    @contextmanager
    def lead(self, key: str) -> "Iterator[Callable[[Mapping[str, Any]], None]]":
        """Fly for everybody who asks meanwhile; call what is given with the answer that they may have."""
        flight: asyncio.Future[Landed] = asyncio.get_running_loop().create_future()
        self._under_way[key] = flight
        landed: Landed = None

        def share(found: Mapping[str, Any]) -> None:
            nonlocal landed
            landed = found

        try:
            yield share
        except ProvidersFailed as error:
            landed = error
            raise
        finally:
            del self._under_way[key]
            flight.set_result(landed)


def cache_key(tenant_id: TenantId, route: Route, messages: tuple[ChatMessage, ...], parameters: Parameters) -> str:
    """The same for the same question only: tenant, models behind the name, messages and parameters are all in it."""
    canonical = json.dumps(
        {
            "tenant": str(tenant_id),
            "model": route.name,
            "upstreams": [[model.provider, model.upstream] for model in route.models],
            "messages": [[message.role, message.text] for message in messages],
            "parameters": {name: getattr(parameters, name) for name in Parameters.__dataclass_fields__},
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return f"answer:{tenant_id}:{hashlib.sha256(canonical.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class OneShotKeeping:
    """The key a one-shot question is asked under, and how its answer is written down for whoever repeats it."""

    claim: Claim
    render: Callable[[Message], Kept]


async def answer_once(
    principal: Principal,
    user: User,
    content: str,
    model: str | None,
    request_id: str,
    ports: OneShotPorts,
    keeping: OneShotKeeping | None = None,
) -> Message:
    """Answer one question of `user` (the principal, or somebody the principal speaks for), from the cache if it can.

    Raises NotFound (model), QuotaExceeded, ProvidersFailed, Unavailable, KeyTaken.
    """
    speaker = replace(principal, user=user)
    route = resolve(ports.dialogs.catalog.current(), principal, model)
    chat = ChatRequest(messages=(ChatMessage(role=ChatRole.USER, text=content),))
    key = cache_key(principal.tenant_id, route, chat.messages, chat.parameters)
    dialog = await _chat_dialog(speaker, ports.dialogs)
    question = new_question(dialog, None, content, request_id, ports.dialogs.clock())
    failures = 0
    while (flight := ports.flights.under_way(key)) is not None:
        landed = await asyncio.shield(flight)
        if isinstance(landed, ProvidersFailed):
            failures += 1
            if failures == MOST_FAILURES:
                raise landed
        elif landed is not None:
            return await _keep_cached(question, landed, ports, keeping)
    with ports.flights.lead(key) as share:
        found = await ports.cache.get(key)
        if found is None:
            answer, outcome = await _generate(speaker, route, chat, question, ports, keeping)
            if outcome.status is CallStatus.COMPLETED:
                share(_cacheable(outcome))
                await ports.cache.put(key, _cacheable(outcome), ports.cache_ttl_s)
            return answer
        share(found)
    return await _keep_cached(question, found, ports, keeping)


async def history(principal: Principal, user: User, limit: int, ports: DialogPorts) -> list[Exchange]:
    """The user's one-shot questions and answers, newest first."""
    async with ports.open_reading(principal.tenant_id) as uow:
        return await uow.dialogs.exchanges(user.id, limit=limit)


async def _chat_dialog(speaker: Principal, ports: DialogPorts) -> Dialog:
    """The user's dialog of one-shot questions, made at the first one."""
    async with ports.open_reading(speaker.tenant_id) as uow:
        found = await uow.dialogs.chat_dialog(speaker.user_id)
    if found is not None:
        return found
    async with ports.open_uow(speaker.tenant_id) as uow:
        now = ports.clock()
        dialog = Dialog(
            id=DialogId(new_id()),
            tenant_id=speaker.tenant_id,
            user_id=speaker.user_id,
            kind=DialogKind.CHAT,
            created_at=now,
            updated_at=now,
        )
        try:
            await uow.dialogs.add(dialog)
            await uow.commit()
            return dialog
        except Conflict:
            pass
    async with ports.open_reading(speaker.tenant_id) as uow:
        made_meanwhile = await uow.dialogs.chat_dialog(speaker.user_id)
        assert made_meanwhile is not None  # noqa: S101
        return made_meanwhile


async def _generate(
    speaker: Principal,
    route: Route,
    chat: ChatRequest,
    question: Message,
    ports: OneShotPorts,
    keeping: OneShotKeeping | None,
) -> tuple[Message, Outcome]:
    answer = unanswered(question)
    call = Call(
        principal=speaker,
        route=route,
        chat=chat,
        endpoint="chat",
        request_id=question.request_id or "",
        opening=(MessagesAdded(messages=(question, answer)), *((keeping.claim,) if keeping else ())),
        closing=lambda outcome: _ended(ended_answer(answer, outcome), keeping),
        dialog_id=question.dialog_id,
        message_id=answer.id,
        detached=True,
    )
    outcome = await (await begin(call, ports.completions)).outcome()
    if outcome.error is not None:
        raise outcome.error
    return ended_answer(answer, outcome), outcome


def _ended(answer: Message, keeping: OneShotKeeping | None) -> Sequence[Record]:
    ending = AnswerEnded(answer=answer)
    if keeping is None:
        return (ending,)
    if answer.status is not MessageStatus.COMPLETED:
        return (ending, ClaimFreed(claim_id=keeping.claim.id))
    return (ending, keeping.render(answer))


def _cacheable(outcome: Outcome) -> Mapping[str, Any]:
    return {
        "text": outcome.text,
        "model": outcome.model.name if outcome.model else None,
        "finish_reason": outcome.finish_reason.value,
    }


async def _keep_cached(
    question: Message, found: Mapping[str, Any], ports: OneShotPorts, keeping: OneShotKeeping | None
) -> Message:
    """Store the question with its cached answer: the history loses nothing, the ledger has nothing to do."""
    answer = replace(
        unanswered(question),
        content=found["text"],
        model=found["model"],
        finish_reason=found["finish_reason"],
        status=MessageStatus.COMPLETED,
        usage=Usage(),
        cached=True,
        completed_at=ports.dialogs.clock(),
    )
    asked_under = () if keeping is None else (keeping.claim, keeping.render(answer))
    await ports.completions.answers.ledger.record((MessagesAdded(messages=(question, answer)), *asked_under))
    return answer
