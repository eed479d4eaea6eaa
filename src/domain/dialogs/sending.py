"""A question put to a dialog: history fitted, question and answer stored with the hold, the answer settled with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from src.domain.catalog.model import Route
from src.domain.completion.answer import Answer
from src.domain.completion.idempotency import Claim, ClaimFreed, Kept
from src.domain.completion.model import (
    CacheWish,
    Call,
    ChatMessage,
    ChatRequest,
    ChatRole,
    Outcome,
    Parameters,
)
from src.domain.completion.ports import TokenMeter
from src.domain.completion.use_cases import CompletionPorts, begin, resolve
from src.domain.dialogs.context import as_told, fitting, tokens_of, with_results
from src.domain.dialogs.model import (
    AnswerEnded,
    Context,
    Dialog,
    DialogId,
    Message,
    MessageId,
    MessageRole,
    MessageStatus,
    new_question,
    unanswered,
)
from src.domain.dialogs.storing import Storing, instructions_of
from src.domain.dialogs.use_cases import DialogPorts, own_dialog
from src.domain.identity.model import Principal
from src.domain.ledger.model import CallStatus, Record
from src.domain.limits.model import Level
from src.shared.errors import CONTEXT_TOO_LONG, InvalidRequest, NotFound

MAX_HISTORY = 2000
"""The most messages read for one context; a window that large has not been sold yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """A question and its answer as they are stored, and the call that gave it.

    `levels` are those of the rate buckets it took from, for whoever waits for the answer.
    """

    question: Message
    answer: Message
    omitted_turns: int
    outcome: Outcome
    parameters: Parameters
    levels: Sequence[Level] = ()


@dataclass(frozen=True, slots=True)
class Keeping:
    """The key a question is asked under, and how the exchange is written down as its answer.

    Streams need no `render`: the stored message is what a repetition gets.
    """

    claim: Claim
    render: Callable[[Exchanged], Kept] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a user asks in a dialog; `params` are the dialog's with the question's own on top."""

    dialog_id: DialogId
    content: str
    request_id: str
    model: str | None = None
    parent_id: MessageId | None = None
    params: Mapping[str, Any] | None = None
    stream: bool = False
    keeping: Keeping | None = None
    cache: CacheWish = CacheWish()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A question with what its model is to be asked: as much of the dialog as fits."""

    question: Message
    route: Route
    chat: ChatRequest
    omitted_turns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanging:
    """A question stored and its answer under way."""

    question: Message
    storing: Storing
    omitted_turns: int
    answering: Answer

    @property
    def answer(self) -> Message:
        """The answer before its first word."""
        return self.storing.answer

    async def ended(self) -> Message:
        """The answer as it was stored. Raises what kept it from being given, where there is no answer at all."""
        return (await self.exchanged()).answer

    async def exchanged(self) -> Exchanged:
        """The whole exchange as it was stored. Raises what `ended` does."""
        outcome = await self.answering.outcome()
        if outcome.status is CallStatus.FAILED and outcome.error is not None:
            raise outcome.error
        return Exchanged(
            question=self.question,
            answer=self.storing.ended(outcome),
            omitted_turns=self.omitted_turns,
            outcome=outcome,
            parameters=self.answering.call.chat.parameters,
            levels=self.answering.call.permit.levels,
        )


async def prepare(principal: Principal, question: Question, dialogs: DialogPorts, meter: TokenMeter) -> Prepared:
    """The question as it would be asked now; nothing is stored.

    Raises NotFound (dialog, parent or model), NotAllowed, InvalidRequest (the question alone overflows the window).
    """
    dialog, path = await _history(principal, question, dialogs)
    route = resolve(dialogs.catalog.current(), principal, question.model or dialog.model)
    parameters = Parameters(**{**dialog.params, **(question.params or {})})
    parent_id = path[-1].id if path else None
    asked = new_question(dialog, parent_id, question.content, question.request_id, dialogs.clock())
    context = _context(dialog, [*path, asked], route, parameters, meter)
    messages = _as_chat(_system_prompt(dialog, path), context.messages)
    chat = ChatRequest(messages=messages, parameters=parameters, stream=question.stream)
    return Prepared(question=asked, route=route, chat=chat, omitted_turns=context.omitted_turns)


async def ask(
    principal: Principal, question: Question, dialogs: DialogPorts, completions: CompletionPorts
) -> Exchanging:
    """Store the question and begin the answer.

    Raises what `prepare` does, and QuotaExceeded.
    """
    prepared = await prepare(principal, question, dialogs, completions.answers.meter)
    return await put(
        principal, prepared, completions, endpoint="dialogs", keeping=question.keeping, cache=question.cache
    )


async def put(
    principal: Principal,
    prepared: Prepared,
    completions: CompletionPorts,
    *,
    endpoint: str,
    keeping: Keeping | None,
    cache: CacheWish,
) -> Exchanging:
    """Put a prepared question to its model. Raises QuotaExceeded."""
    asked = prepared.question
    storing = Storing(asked=(asked,), answer=unanswered(asked))
    answer = storing.answer
    call = Call(
        principal=principal,
        route=prepared.route,
        chat=prepared.chat,
        endpoint=endpoint,
        request_id=asked.request_id or "",
        opening=(*storing.opening(), *_claimed(keeping, answer)),
        noting=storing.noting,
        closing=lambda outcome: _ended(
            keeping,
            Exchanged(
                question=asked,
                answer=storing.ended(outcome),
                omitted_turns=prepared.omitted_turns,
                outcome=outcome,
                parameters=prepared.chat.parameters,
            ),
        ),
        dialog_id=asked.dialog_id,
        message_id=answer.id,
        detached=True,
        cache=cache,
    )
    answering = await begin(call, completions)
    return Exchanging(question=asked, storing=storing, omitted_turns=prepared.omitted_turns, answering=answering)


def _claimed(keeping: Keeping | None, answer: Message) -> Sequence[Record]:
    """The key of the request, which leads whoever repeats it to the answer."""
    return () if keeping is None else (replace(keeping.claim, message_id=answer.id),)


def _ended(keeping: Keeping | None, exchanged: Exchanged) -> Sequence[Record]:
    ending = AnswerEnded(answer=exchanged.answer)
    if keeping is None:
        return (ending,)
    if exchanged.answer.status is MessageStatus.FAILED:
        return (ending, ClaimFreed(claim_id=keeping.claim.id))
    return (ending,) if keeping.render is None else (ending, keeping.render(exchanged))


async def _history(principal: Principal, question: Question, ports: DialogPorts) -> tuple[Dialog, list[Message]]:
    """The dialog and the messages above the question, root first; unfinished answers are no history."""
    async with ports.open_reading(principal.tenant_id) as uow:
        dialog = await own_dialog(uow, principal, question.dialog_id)
        leaf = question.parent_id or dialog.head_id
        if leaf is None:
            return dialog, []
        path = await uow.dialogs.path(dialog.id, leaf, limit=MAX_HISTORY)
    if not path:
        raise NotFound("The parent message is not in this dialog.", param="parent_id")
    is_question = path[-1].role is not MessageRole.ASSISTANT and question.parent_id is not None
    if is_question or path[-1].status is MessageStatus.IN_PROGRESS:
        raise InvalidRequest("parent_id must name an answer that has ended.", param="parent_id")
    return dialog, path


def _system_prompt(dialog: Dialog, path: Sequence[Message]) -> str | None:
    """The dialog's own; where it has none, the instructions of its newest answer from a door that keeps them."""
    if dialog.system_prompt:
        return dialog.system_prompt
    return next((instructions_of(each) for each in reversed(path) if "response" in (each.settings or {})), None)


def _context(
    dialog: Dialog, path: Sequence[Message], route: Route, parameters: Parameters, meter: TokenMeter
) -> Context:
    """The newest turns that fit the first model's window beside the system prompt and the answer."""
    model = route.models[0]
    spent = tokens_of(dialog.system_prompt, model, meter) if dialog.system_prompt else 0
    context = fitting(path, model, parameters, spent, meter)
    if context.messages:
        return context
    question = path[-1]
    if tokens_of(question.content, model, meter) > model.context_window:
        raise InvalidRequest(
            f"The message does not fit the context window of {model.name} ({model.context_window} tokens).",
            param="content",
            code=CONTEXT_TOO_LONG,
        )
    return Context(messages=(question,), omitted_turns=context.omitted_turns - 1)


def _as_chat(system_prompt: str | None, messages: Sequence[Message]) -> tuple[ChatMessage, ...]:
    system = (ChatMessage(role=ChatRole.SYSTEM, text=system_prompt),) if system_prompt else ()
    return (*system, *with_results(as_told(messages)))
