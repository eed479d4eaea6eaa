"""One question, one answer, no history: POST /chat."""

from dataclasses import dataclass, replace

from src.domain.completion.model import CacheWish, ChatMessage, ChatRequest, ChatRole
from src.domain.completion.use_cases import CompletionPorts, resolve
from src.domain.dialogs.model import Dialog, DialogId, DialogKind, Exchange, new_question
from src.domain.dialogs.sending import Exchanged, Keeping, Prepared, put
from src.domain.dialogs.use_cases import DialogPorts
from src.domain.identity.model import Principal, User
from src.shared.errors import Conflict
from src.shared.ids import new_id

CACHED = CacheWish(on=True)
"""What is wished for questions that wish nothing themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShot:
    """A question of `user`: the principal, or somebody the principal speaks for."""

    user: User
    content: str
    request_id: str
    model: str | None = None
    keeping: Keeping | None = None
    cache: CacheWish = CACHED


async def answer_once(
    principal: Principal, asked: OneShot, dialogs: DialogPorts, completions: CompletionPorts
) -> Exchanged:
    """Answer one question.

    Raises NotFound (model), QuotaExceeded, ProvidersFailed, Unavailable, KeyTaken.
    """
    speaker = replace(principal, user=asked.user)
    route = resolve(dialogs.catalog.current(), principal, asked.model)
    dialog = await _chat_dialog(speaker, dialogs)
    prepared = Prepared(
        question=new_question(dialog, None, asked.content, asked.request_id, dialogs.clock()),
        route=route,
        chat=ChatRequest(messages=(ChatMessage(role=ChatRole.USER, text=asked.content),)),
        omitted_turns=0,
    )
    exchange = await put(speaker, prepared, completions, endpoint="chat", keeping=asked.keeping, cache=asked.cache)
    exchanged = await exchange.exchanged()
    if exchanged.outcome.error is not None:
        raise exchanged.outcome.error
    return exchanged


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
