"""Turns of a conversation follow each other in the order of their ends: in memory, on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from src.domain.dialogs.model import ASIDE, TURN, AnswerEnded, Dialog, Message, MessageId, MessagesAdded, MessageStatus
from src.domain.identity.model import User
from src.domain.ledger.model import Closing, Hold, HoldState, Renewal
from src.shared.ids import new_id
from tests.contracts.conftest import Backend
from tests.makers import NOW, make_answer, make_closing, make_dialog, make_hold_request, make_message, make_usage_record

Turn = tuple[Message, Message, Hold]


class Scene:
    """A dialog, and the turns that are under way in it."""

    def __init__(self, backend: Backend, ledger: object, user: User, dialog: Dialog) -> None:
        self.backend, self.ledger, self.user, self.dialog = backend, ledger, user, dialog

    async def begin(self, parent_id: MessageId | None = None, *, alone: bool = False, aside: bool = False) -> Turn:
        """Ask; `alone`: the answer is that of a branch, which stays where it is; `aside`: and never is the end."""
        question = make_message(self.dialog, parent_id=parent_id)
        answer = make_answer(question, settings=None if alone else {TURN: str(question.id)})
        answer = replace(answer, settings={ASIDE: True}) if aside else answer
        request = make_hold_request(self.user, id=new_id())
        hold = await self.ledger.open(request, (MessagesAdded(messages=(question, answer)),))  # type: ignore[attr-defined]
        return question, answer, hold

    async def end(self, turn: Turn, status: MessageStatus = MessageStatus.COMPLETED) -> None:
        """Settle it."""
        _, answer, hold = turn
        row = make_usage_record(hold, message_id=answer.id)
        ended = replace(answer, content="é", status=status, completed_at=NOW, usage=row.usage, model=row.model)
        ended = replace(ended, cost_micro_usd=row.cost_micro_usd)
        closing = make_closing(hold, message_id=answer.id)
        await self.ledger.close(closing, (row, AnswerEnded(answer=ended)))  # type: ignore[attr-defined]

    async def give_up(self, turn: Turn, *, noted: bool = True) -> None:
        """What is done about a call whose gateway died, after some of it was noted."""
        hold = turn[2]
        usage = make_usage_record(hold) if noted else None
        renewal = Renewal(hold=hold, at=NOW, expires_at=hold.expires_at, noted=usage)
        await self.ledger.renew(renewal)  # type: ignore[attr-defined]
        await self.ledger.close(Closing(hold=hold, state=HoldState.EXPIRED, at=NOW + timedelta(hours=1)))  # type: ignore[attr-defined]

    async def say(self) -> Message:
        """Put a message at the end, as whoever adds items does."""
        async with self.backend.open_uow(self.user.tenant_id) as uow:
            dialog = await uow.dialogs.dialog(self.dialog.id, self.user.id, still=True)
            assert dialog is not None
            said = make_message(self.dialog, parent_id=dialog.head_id)
            await uow.dialogs.append(dialog, [said])
            await uow.commit()
        return said

    async def ids(self) -> list[MessageId]:
        """Of the current branch."""
        async with self.backend.open_uow(self.user.tenant_id) as uow:
            dialog = await uow.dialogs.dialog(self.dialog.id, self.user.id)
            assert dialog is not None
            if dialog.head_id is None:
                return []
            return [each.id for each in await uow.dialogs.path(dialog.id, dialog.head_id, limit=100)]


async def begun(backend: Backend, ledger: object) -> Scene:
    user = await backend.rich_user(100_000)
    dialog = make_dialog(user)
    async with backend.open_uow(user.tenant_id) as uow:
        await uow.dialogs.add(dialog)
        await uow.commit()
    return Scene(backend, ledger, user, dialog)


def ids_of(*turns: Turn | Message) -> list[MessageId]:
    messages: list[Message] = []
    for each in turns:
        messages += each[:2] if isinstance(each, tuple) else (each,)
    return [each.id for each in messages]


async def test_turns_begun_together_follow_each_other(backend: Backend) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        first, second, third = [await scene.begin() for _ in range(3)]
        for turn in (second, third, first):
            await scene.end(turn)
    assert await scene.ids() == ids_of(second, third, first)


async def test_what_was_said_meanwhile_stays(backend: Backend) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        turn = await scene.begin()
        said = await scene.say()
        await scene.end(turn)
    assert await scene.ids() == ids_of(said, turn)


async def test_a_turn_whose_ground_was_removed_keeps_what_is_above(backend: Backend) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        kept, gone = await scene.say(), await scene.say()
        async with backend.open_uow(scene.user.tenant_id) as uow:
            await uow.dialogs.remove(gone)
            await uow.commit()
        turn = await scene.begin(gone.id)
        await scene.end(turn)
    assert await scene.ids() == ids_of(kept, turn)


async def test_a_failed_turn_and_a_branch_stay_where_they_are(backend: Backend) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        ground = await scene.begin()
        await scene.end(ground)
        failed, branch = await scene.begin(ground[1].id), await scene.begin(ground[1].id, alone=True)
        said = await scene.say()
        await scene.end(failed, MessageStatus.FAILED)
        assert await scene.ids() == ids_of(ground, said)
        await scene.end(branch)
    assert await scene.ids() == ids_of(ground, branch)


async def test_what_is_aside_is_never_the_end(backend: Backend) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        ground = await scene.say()
        ended, lost = [await scene.begin(ground.id, aside=True) for _ in range(2)]
        await scene.end(ended)
        await scene.give_up(lost)
        assert await scene.ids() == ids_of(ground)


async def test_a_turn_that_comes_back_late_is_not_hung_below_what_was_built_upon_it(backend: Backend) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        late = await scene.begin()
        _, answer, _ = late
        await scene.give_up(late)
        above = await scene.begin(answer.id, alone=True)
        await scene.end(above)
        assert await scene.ids() == ids_of(late, above)
        await scene.end(late)
    async with backend.open_uow(scene.user.tenant_id) as uow:
        path = await uow.dialogs.path(scene.dialog.id, above[1].id, limit=100)
    assert [each.id for each in path] == ids_of(late, above)


async def test_what_is_left_of_a_turn_that_was_given_up_is_the_end(backend: Backend) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        ground = await scene.say()
        lost = await scene.begin(ground.id)
        said = await scene.say()
        await scene.give_up(lost)
        assert await scene.ids() == ids_of(ground, said, lost)
        later = await scene.say()
        await scene.end(lost)
        assert await scene.ids() == ids_of(ground, said, lost, later), "it came back: it stays where it is"
        await scene.give_up(await scene.begin(later.id), noted=False)
        assert await scene.ids() == ids_of(ground, said, lost, later), "nothing is left of it"


async def test_what_is_left_of_a_branch_is_the_end_unless_a_later_one_is(backend: Backend) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        ground = await scene.say()
        lost, later, last = [await scene.begin(ground.id, alone=True) for _ in range(3)]
        await scene.end(later)
        await scene.give_up(lost)
        assert await scene.ids() == ids_of(ground, later)
        await scene.give_up(last)
        assert await scene.ids() == ids_of(ground, last)


@pytest.mark.parametrize("is_built_upon", [False, True])
async def test_a_turn_that_comes_back_from_nothing_is_put_at_the_end_unless_it_is_built_upon(
    backend: Backend, is_built_upon: bool
) -> None:
    async with backend.ledger() as ledger:
        scene = await begun(backend, ledger)
        late = await scene.begin()
        await scene.give_up(late, noted=False)
        above = await scene.begin(late[1].id if is_built_upon else None, alone=True)
        await scene.end(above)
        await scene.end(late)
        assert await scene.ids() == (ids_of(late, above) if is_built_upon else ids_of(above, late))


@pytest.mark.parametrize("turns", [2, 20])
async def test_replicas_that_end_and_say_at_once_lose_nothing(backend: Backend, turns: int) -> None:
    async with backend.ledger() as here, backend.replica().ledger() as there:
        scene = await begun(backend, here)
        ledgers: Sequence[object] = (here, there)
        scenes = [Scene(backend, ledger, scene.user, scene.dialog) for ledger in ledgers]
        begun_turns = [(each, await each.begin()) for _ in range(turns // 2) for each in scenes]
        said, _ = await asyncio.gather(
            asyncio.gather(*(scene.say() for _ in range(5))),
            asyncio.gather(*(each.end(turn) for each, turn in begun_turns)),
        )
    found = await scene.ids()
    assert sorted(found) == sorted(ids_of(*(turn for _, turn in begun_turns), *said))
    assert len(found) == len(set(found)) == 2 * turns + 5
