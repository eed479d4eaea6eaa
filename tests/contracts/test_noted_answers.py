"""What is noted of an answer while it is given is what is left of it when its gateway dies: in memory and in SQL."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from src.domain.dialogs.model import AnswerEnded, AnswerNoted, Message, MessagesAdded, MessageStatus
from src.domain.ledger.model import Closing, Hold, HoldState, Record, Renewal
from tests.contracts.conftest import Backend
from tests.makers import NOW, make_answer, make_closing, make_dialog, make_hold_request, make_message, make_usage_record

CALL = {"type": "tool_call", "id": "c", "name": "look", "arguments": '{"q":'}
PARTS = ({"type": "thinking", "text": "hm"}, {"type": "text", "text": "é"}, CALL)


def note_of(answer: Message, content: str, parts: Sequence[dict[str, str]] = ()) -> AnswerNoted:
    return AnswerNoted(tenant_id=answer.tenant_id, message_id=answer.id, content=content, parts=parts)


class Scene:
    """A call whose answer is stored in a dialog."""

    def __init__(self, backend: Backend, answer: Message, hold: Hold, ledger: object) -> None:
        self.backend, self.answer, self.hold, self.ledger = backend, answer, hold, ledger

    async def note(self, *records: Record) -> None:
        noted = make_usage_record(self.hold)
        later = self.hold.expires_at + timedelta(minutes=1)
        await self.ledger.renew(Renewal(hold=self.hold, at=NOW, expires_at=later, noted=noted), records)  # type: ignore[attr-defined]

    async def stored(self) -> Message:
        async with self.backend.open_uow(self.answer.tenant_id) as uow:
            found = await uow.dialogs.message(self.answer.dialog_id, self.answer.id)
        assert found is not None
        return found


async def begun(backend: Backend, ledger: object) -> Scene:
    user = await backend.rich_user(1000)
    dialog = make_dialog(user)
    answer = make_answer(make_message(dialog))
    async with backend.open_uow(user.tenant_id) as uow:
        await uow.dialogs.add(dialog)
        await uow.commit()
    hold = await ledger.open(make_hold_request(user), (MessagesAdded(messages=(answer,)),))  # type: ignore[attr-defined]
    return Scene(backend, answer, hold, ledger)


@pytest.mark.parametrize("parts", [(), PARTS], ids=["text", "parts"])
async def test_what_was_noted_is_read_and_outlives_the_call(backend: Backend, parts: Sequence[dict[str, str]]) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        await scene.note(note_of(scene.answer, "é", PARTS[:1]))
        await scene.note(note_of(scene.answer, "é", parts))
        found = await scene.stored()
        assert found == replace(scene.answer, content="é", parts=parts)
        await ledger.close(Closing(hold=scene.hold, state=HoldState.EXPIRED, at=NOW + timedelta(hours=1)))
    found = await scene.stored()
    assert (found.status, found.content, found.parts) == (MessageStatus.INTERRUPTED, "é", parts)
    assert found.usage is not None


async def test_a_note_that_comes_after_the_end_changes_nothing(backend: Backend) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        ended = replace(scene.answer, content="All.", status=MessageStatus.COMPLETED, completed_at=NOW)
        row = make_usage_record(scene.hold)
        ended = replace(ended, usage=row.usage, cost_micro_usd=row.cost_micro_usd, model=row.model)
        await ledger.close(make_closing(scene.hold), (row, AnswerEnded(answer=ended)))
        await ledger.record((note_of(scene.answer, "é", PARTS),))
    assert await scene.stored() == ended
