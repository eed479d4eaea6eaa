"""One question, one answer, cached."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from src.domain.catalog.model import Route, Usage
from src.domain.completion.model import ChatMessage, ChatRole, Failure, Parameters, UpstreamFailed
from src.domain.dialogs.model import DialogKind, Message, MessageStatus
from src.domain.dialogs.one_shot import Flights, OneShotPorts, answer_once, cache_key, history
from src.domain.identity.model import TenantId, User
from src.domain.ledger.model import HoldState
from src.shared.errors import Conflict, NotFound, ProvidersFailed, QuotaExceeded
from tests.makers import make_dialog, make_user, nobody
from tests.unit.support import (
    FakeCache,
    FakeDialogs,
    FakeLedger,
    FakeUnitOfWork,
    FakeUpstreams,
    Gate,
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
        self.ports = OneShotPorts(
            dialogs=dialog_ports(self.dialogs, catalog),
            completions=completion_ports(self.ledger, upstreams, catalog),
            cache=self.cache,
            cache_ttl_s=60,
            flights=Flights(),
        )

    async def ask(self, content: str = "how are you", *, model: str | None = None, user: User | None = None) -> Message:
        return await answer_once(self.me, user or self.me.user, content, model, "req-1", self.ports)


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


async def test_identical_questions_at_the_same_time_are_answered_by_one_call() -> None:
    gate = Gate()
    scene = Scene([gate, *answers("fine")])
    asking = [asyncio.create_task(scene.ask()) for _ in range(5)]
    await gate.reached.wait()
    gate.opened.set()
    found = await asyncio.gather(*asking)
    assert [answer.content for answer in found] == ["fine"] * 5
    assert sorted(answer.cached for answer in found) == [False, True, True, True, True]
    assert len(scene.model.requests) == 1


async def test_when_the_first_of_identical_calls_fails_the_next_tries() -> None:
    gate = Gate()
    scene = Scene([gate, LOST], answers("fine"))
    asking = [asyncio.create_task(scene.ask()) for _ in range(2)]
    await gate.reached.wait()
    gate.opened.set()
    first, second = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(first, ProvidersFailed)
    assert isinstance(second, Message)
    assert second.content == "fine"


async def test_a_provider_that_is_down_is_not_asked_once_for_each_who_waits() -> None:
    gate = Gate()
    scene = Scene([gate, LOST], [LOST])
    asking = [asyncio.create_task(scene.ask()) for _ in range(5)]
    await gate.reached.wait()
    gate.opened.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results] == [ProvidersFailed] * 5
    assert len(scene.model.requests) == 2
    assert scene.ports.flights._under_way == {}


async def test_different_questions_do_not_wait_for_each_other() -> None:
    gate = Gate()
    scene = Scene([gate, *answers("slowly")], answers("fine"))
    waiting = asyncio.create_task(scene.ask("one"))
    await gate.reached.wait()
    assert (await scene.ask("two")).content == "fine"
    gate.opened.set()
    assert (await waiting).content == "slowly"


async def test_a_caller_who_leaves_the_line_blocks_nobody() -> None:
    gate = Gate()
    scene = Scene([gate, *answers("fine")])
    first, second, third = (asyncio.create_task(scene.ask()) for _ in range(3))
    await gate.reached.wait()
    second.cancel()
    await asyncio.sleep(0)
    gate.opened.set()
    assert (await first).content == (await third).content == "fine"
    assert second.cancelled()
    assert scene.ports.flights._under_way == {}


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
    found = await history(scene.me, scene.me.user, 2, scene.ports.dialogs)
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

    scene.ports = replace(scene.ports, dialogs=replace(scene.ports.dialogs, open_uow=open_uow))
    assert (await scene.ask()).dialog_id == winner.id


def key_of(**given: object) -> str:
    messages = (ChatMessage(role=ChatRole.USER, text=given.get("text", "hi")),)
    route = Route(name=given.get("name", "fast"), models=given.get("models", (make_model(),)))
    return cache_key(given.get("tenant", TenantId(_TENANT)), route, messages, given.get("parameters", Parameters()))


_TENANT = nobody()


def test_the_same_question_has_the_same_key() -> None:
    assert key_of() == key_of()
    assert key_of().startswith(f"answer:{_TENANT}:")


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": TenantId(nobody())},
        {"text": "hi "},
        {"text": "hé"},
        {"name": "smart"},
        {"models": (make_model(upstream="another"),)},
        {"models": (make_model(provider="another"),)},
        {"models": (make_model(), make_model(name="slow"))},
        *({"parameters": Parameters(**{name: 1})} for name in ("max_output_tokens", "temperature", "seed", "top_k")),
        {"parameters": Parameters(stop=("x",))},
        {"parameters": Parameters(choices=2)},
    ],
)
def test_any_difference_is_another_key(other: dict[str, object]) -> None:
    assert key_of(**other) != key_of()
