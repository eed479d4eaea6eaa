"""One question, one answer, cached unless it wishes otherwise."""

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from src.domain.catalog.model import Usage
from src.domain.completion.model import CacheWish, Failure, UpstreamFailed
from src.domain.dialogs.model import DialogKind, Message, MessageStatus
from src.domain.dialogs.one_shot import OneShot, answer_once, history
from src.domain.identity.model import User
from src.domain.ledger.model import HoldState
from src.shared.errors import Conflict, NotFound, ProvidersFailed, QuotaExceeded
from tests.makers import make_dialog, make_user
from tests.unit.support import (
    FakeCache,
    FakeDialogs,
    FakeLedger,
    FakeUnitOfWork,
    FakeUpstreams,
    ScriptedModel,
    Step,
    answers,
    completion_ports,
    dialog_ports,
    make_catalog,
    make_model,
    make_principal,
)

LOST = UpstreamFailed(Failure.SERVER, "The provider failed.")


class Scene:
    """A user who asks single questions."""

    def __init__(self, *scripts: list[Step]) -> None:
        self.me = make_principal()
        self.model = ScriptedModel(*(scripts or (answers("fine"),)))
        catalog = make_catalog(make_model(), make_model(name="slow"), default_model="fast")
        self.ledger, self.cache = FakeLedger(), FakeCache()
        self.dialogs = FakeDialogs(self.ledger)
        upstreams = FakeUpstreams(fast=self.model, slow=self.model)
        self.ports = dialog_ports(self.dialogs, catalog)
        self.completions = completion_ports(self.ledger, upstreams, catalog, self.cache)

    async def ask(self, content: str = "how are you", *, user: User | None = None, **given: Any) -> Message:
        asked = OneShot(user=user or self.me.user, content=content, request_id="req-1", **given)
        return (await answer_once(self.me, asked, self.ports, self.completions)).answer


async def test_a_question_is_answered_stored_and_charged() -> None:
    scene = Scene()
    answer = await scene.ask()
    assert (answer.content, answer.status, answer.model) == ("fine", MessageStatus.COMPLETED, "fast")
    assert (answer.cached, answer.cost_micro_usd) == (False, 9)
    assert scene.dialogs.stored()[answer.id] == answer
    assert scene.ledger.states == [HoldState.SETTLED]


async def test_the_same_question_again_costs_nothing_and_is_stored_too() -> None:
    scene = Scene()
    first = await scene.ask()
    second = await scene.ask()
    assert (second.content, second.model, second.finish_reason) == (first.content, first.model, first.finish_reason)
    assert (second.cached, second.cost_micro_usd, second.usage) == (True, 0, Usage())
    assert second.id != first.id
    assert second.id in scene.dialogs.stored()
    assert (len(scene.model.requests), scene.ledger.states) == (1, [HoldState.SETTLED])


@pytest.mark.parametrize("wish", [CacheWish(on=False), CacheWish(on=True, fresh=True)])
async def test_a_question_that_wishes_so_is_answered_anew(wish: CacheWish) -> None:
    scene = Scene(answers("fine"), answers("better"))
    await scene.ask()
    answer = await scene.ask(cache=wish)
    assert (answer.content, answer.cached, len(scene.model.requests)) == ("better", False, 2)


async def test_a_failed_answer_is_told_and_not_cached() -> None:
    scene = Scene([LOST])
    with pytest.raises(ProvidersFailed):
        await scene.ask()
    assert scene.cache.kept == {}
    assert [message.status for message in scene.dialogs.stored().values()][-1] is MessageStatus.FAILED


async def test_what_cannot_be_paid_is_not_asked() -> None:
    scene = Scene()
    scene.ledger.top_up(scene.me, 5)
    with pytest.raises(QuotaExceeded):
        await scene.ask()
    assert (scene.model.requests, scene.dialogs.stored()) == ([], {})


async def test_an_unknown_model_is_refused_before_anything_is_stored() -> None:
    scene = Scene()
    with pytest.raises(NotFound):
        await scene.ask(model="gone")
    assert await scene.dialogs.chat_dialog(scene.me.user_id) is None


async def test_all_questions_of_a_user_go_to_one_dialog() -> None:
    scene = Scene()
    other = make_user(scene.me.tenant)
    mine, mine_too, theirs = await scene.ask("one"), await scene.ask("two"), await scene.ask("three", user=other)
    assert mine.dialog_id == mine_too.dialog_id != theirs.dialog_id
    assert scene.ledger.usage_rows[-1].user_id == other.id


async def test_history_is_newest_first_and_as_long_as_asked() -> None:
    scene = Scene()
    for content in ("one", "two", "three"):
        await scene.ask(content)
    found = await history(scene.me, scene.me.user, 2, scene.ports)
    assert [exchange.question.content for exchange in found] == ["three", "two"]


async def test_two_first_questions_at_once_share_the_dialog_that_won() -> None:
    scene = Scene()
    winner = make_dialog(scene.me.user, kind=DialogKind.CHAT)

    class Late(FakeUnitOfWork):
        """Another replica has just made the dialog."""

        async def commit(self) -> None:
            scene.dialogs._dialogs = {winner.id: winner}
            raise Conflict("There is one already.")

    @asynccontextmanager
    async def open_uow(_):
        yield Late(scene.dialogs)

    scene.ports = replace(scene.ports, open_uow=open_uow)
    assert (await scene.ask()).dialog_id == winner.id
