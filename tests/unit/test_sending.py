"""A question put to a dialog."""

from dataclasses import replace
from typing import Any

import pytest

from src.domain.completion.deltas import TextDelta
from src.domain.completion.model import (
    ChatRole,
    Failure,
    Parameters,
    UpstreamFailed,
)
from src.domain.dialogs import use_cases
from src.domain.dialogs.context import MESSAGE_OVERHEAD_TOKENS
from src.domain.dialogs.model import Message, MessageRole, MessageStatus
from src.domain.dialogs.sending import Exchanging, Question, ask
from src.domain.ledger.model import HoldState
from src.shared.errors import InvalidRequest, NotAllowed, NotFound, ProvidersFailed, QuotaExceeded
from src.shared.pages import PageRequest
from tests.makers import make_dialog, make_key, make_message, make_user, nobody
from tests.unit.support import (
    FakeDialogs,
    FakeLedger,
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
    """A user with a dialog, and a model that plays scripts."""

    def __init__(self, *scripts: list[Step], window: int = 1000, **dialog: Any) -> None:
        self.me = make_principal()
        self.dialog = make_dialog(self.me.user, **{"model": "fast", **dialog})
        self.model = ScriptedModel(*(scripts or (answers("fine"),)))
        catalog = make_catalog(make_model(context_window=window), make_model(name="slow"), default_model="slow")
        self.ledger = FakeLedger()
        self.dialogs = FakeDialogs(self.ledger)
        self.ports = dialog_ports(self.dialogs, catalog)
        upstreams = FakeUpstreams(fast=self.model, slow=self.model)
        self.completions = completion_ports(self.ledger, upstreams, catalog)

    async def ask(self, content: str = "how are you", **given: Any) -> Exchanging:
        await self.dialogs.add(self.dialog)
        base = {"dialog_id": self.dialog.id, "content": content, "request_id": "req-1"}
        return await ask(self.me, Question(**{**base, **given}), self.ports, self.completions)

    async def asked(self, content: str = "how are you", **given: Any) -> Message:
        return await (await self.ask(content, **given)).ended()

    @property
    def sent(self) -> list[tuple[str, str]]:
        """What the model was sent last."""
        return [(message.role.value, message.text) for message in self.model.requests[-1].chat.messages]


async def test_question_and_answer_are_stored_with_what_they_cost() -> None:
    scene = Scene()
    exchange = await scene.ask()
    ended = await exchange.ended()
    assert (ended.content, ended.status, ended.finish_reason) == ("fine", MessageStatus.COMPLETED, "stop")
    assert (ended.model, ended.parent_id, ended.cost_micro_usd) == ("fast", exchange.question.id, 9)
    assert list(scene.dialogs.stored().values()) == [exchange.question, ended]
    assert scene.ledger.usage_rows[0].message_id == ended.id
    assert scene.ledger.usage_rows[0].dialog_id == scene.dialog.id


async def test_the_next_question_hangs_below_the_newest_answer() -> None:
    scene = Scene(answers("one"), answers("two"))
    first = await scene.asked("q one")
    second = await scene.ask("q two")
    await second.ended()
    assert second.question.parent_id == first.id
    assert scene.sent == [("user", "q one"), ("assistant", "one"), ("user", "q two")]


async def test_an_answer_without_words_is_not_sent_again() -> None:
    scene = Scene(answers(), answers("two"))
    assert (await scene.asked("q one")).content == ""
    await scene.asked("q two")
    assert scene.sent == [("user", "q one"), ("user", "q two")]


async def test_a_question_may_branch_off_an_earlier_answer() -> None:
    scene = Scene(answers("one"), answers("two"), answers("three"))
    first = await scene.asked("q one")
    await scene.asked("q two")
    branch = await scene.ask("q three", parent_id=first.id)
    await branch.ended()
    assert branch.question.parent_id == first.id
    assert ("user", "q two") not in scene.sent


async def test_the_system_prompt_comes_first() -> None:
    scene = Scene(system_prompt="Be kind.")
    await scene.asked()
    assert scene.sent == [("system", "Be kind."), ("user", "how are you")]
    assert scene.model.requests[0].chat.messages[0].role is ChatRole.SYSTEM


async def test_the_questions_parameters_win_over_the_dialogs() -> None:
    scene = Scene(params={"temperature": 0.5, "seed": 1})
    await scene.asked(params={"seed": 2}, stream=True)
    chat = scene.model.requests[0].chat
    assert (chat.parameters, chat.stream) == (Parameters(temperature=0.5, seed=2), True)


@pytest.mark.parametrize(
    ("dialogs", "questions", "used"), [("fast", None, "fast"), ("fast", "slow", "slow"), (None, None, "slow")]
)
async def test_the_questions_model_wins_over_the_dialogs_and_that_over_the_default(
    dialogs: str | None, questions: str | None, used: str
) -> None:
    scene = Scene(model=dialogs)
    assert (await scene.asked(model=questions)).model == used


async def test_old_turns_that_do_not_fit_are_left_out_and_counted() -> None:
    turn = 2 * (3 + MESSAGE_OVERHEAD_TOKENS)
    scene = Scene(answers("fine fine fine"), window=2 * turn)
    for number in range(3):
        await scene.asked(f"question number {number}")
    exchange = await scene.ask("question number 3")
    await exchange.ended()
    assert exchange.omitted_turns == 2
    assert scene.sent[0] == ("user", "question number 2")


async def test_a_wish_for_a_short_answer_leaves_room_for_more_history() -> None:
    turn = 2 * (3 + MESSAGE_OVERHEAD_TOKENS)
    scene = Scene(answers("fine fine fine"), window=15 + 4 * turn)
    omitted = []
    for number in range(4):
        exchange = await scene.ask(f"question number {number}", params={"max_output_tokens": 10})
        await exchange.ended()
        omitted.append(exchange.omitted_turns)
    assert omitted == [0, 0, 0, 0]


async def test_a_question_that_fits_without_room_for_the_answer_is_sent_alone() -> None:
    scene = Scene(answers("fine"), window=40, system_prompt="Be kind.")
    await scene.asked()
    exchange = await scene.ask("word " * 30)
    await exchange.ended()
    assert exchange.omitted_turns == 1
    assert [role for role, _ in scene.sent] == ["system", "user"]


async def test_a_question_larger_than_the_window_is_refused() -> None:
    scene = Scene(window=40)
    with pytest.raises(InvalidRequest) as caught:
        await scene.ask("word " * 41)
    assert (caught.value.specific_code, caught.value.param) == ("context_length_exceeded", "content")
    assert scene.ledger.records == []


async def test_a_question_that_cannot_be_paid_is_not_stored() -> None:
    scene = Scene()
    scene.ledger.top_up(scene.me, 5)
    with pytest.raises(QuotaExceeded):
        await scene.ask()
    assert scene.dialogs.stored() == {}


async def test_a_failed_answer_is_stored_and_does_not_become_the_head() -> None:
    scene = Scene([LOST], answers("fine"))
    exchange = await scene.ask("q one")
    with pytest.raises(ProvidersFailed):
        await exchange.ended()
    stored = scene.dialogs.stored()[exchange.answer.id]
    assert (stored.status, stored.error) == (
        MessageStatus.FAILED,
        {"code": "provider_failed", "message": "The provider failed."},
    )
    assert scene.ledger.states == [HoldState.RELEASED]
    assert (await scene.ask("q two")).question.parent_id is None


async def test_an_interrupted_answer_is_given_as_far_as_it_came() -> None:
    scene = Scene([TextDelta("fi"), LOST])
    ended = await scene.asked(stream=True)
    assert (ended.status, ended.content, ended.finish_reason) == (MessageStatus.INTERRUPTED, "fi", "error")
    assert scene.dialogs.stored()[ended.id] == ended


async def test_an_answer_goes_on_when_its_listener_leaves() -> None:
    gate = Gate()
    scene = Scene([TextDelta("fi"), gate, *answers("ne")])
    exchange = await scene.ask(stream=True)
    deltas = exchange.answering.deltas()
    await anext(deltas)
    await deltas.aclose()
    gate.opened.set()
    assert (await exchange.ended()).content == "fine"


async def test_a_parent_must_be_an_answer_that_has_ended() -> None:
    gate = Gate()
    scene = Scene([gate, *answers("fine")])
    exchange = await scene.ask()
    for unfit in (exchange.question.id, exchange.answer.id):
        with pytest.raises(InvalidRequest) as caught:
            await scene.ask(parent_id=unfit)
        assert caught.value.param == "parent_id"
    gate.opened.set()
    await exchange.ended()


async def test_a_parent_of_another_dialog_does_not_exist() -> None:
    scene = Scene()
    foreign = make_message(make_dialog(scene.me.user), role=MessageRole.ASSISTANT)
    scene.dialogs.given.append(foreign)
    for unknown in (foreign.id, nobody()):
        with pytest.raises(NotFound):
            await scene.ask(parent_id=unknown)


async def test_another_users_dialog_does_not_exist() -> None:
    scene = Scene()
    await scene.dialogs.add(scene.dialog)
    scene.me = make_principal(tenant=scene.me.tenant, user=make_user(scene.me.tenant))
    question = Question(dialog_id=scene.dialog.id, content="hi", request_id="req-1")
    with pytest.raises(NotFound):
        await ask(scene.me, question, scene.ports, scene.completions)


async def test_a_dialog_is_opened_read_changed_listed_and_deleted() -> None:
    scene = Scene()
    me, ports = scene.me, scene.ports
    made = await use_cases.create_dialog(me, {"title": "Quotas", "model": "slow"}, ports)
    assert (await use_cases.get_dialog(me, made.id, ports)).title == "Quotas"
    changed = await use_cases.update_dialog(me, made.id, {"title": None}, ports)
    assert (changed.title, changed.model) == (None, "slow")
    assert (await use_cases.list_dialogs(me, PageRequest(), None, ports)).rows == [changed]
    await use_cases.delete_dialog(me, made.id, ports)
    for gone in (use_cases.get_dialog, use_cases.delete_dialog):
        with pytest.raises(NotFound):
            await gone(me, made.id, ports)
    with pytest.raises(NotFound):
        await use_cases.update_dialog(me, made.id, {}, ports)


async def test_a_dialog_names_models_that_its_user_may_use() -> None:
    scene = Scene()
    with pytest.raises(NotFound):
        await use_cases.create_dialog(scene.me, {"model": "gone"}, scene.ports)
    scoped = replace(scene.me, api_key=make_key(scene.me.user, models=("fast",)))
    made = await use_cases.create_dialog(scoped, {"model": "fast"}, scene.ports)
    with pytest.raises(NotAllowed):
        await use_cases.update_dialog(scoped, made.id, {"model": "slow"}, scene.ports)


async def test_messages_are_read_by_the_dialogs_owner_only() -> None:
    scene = Scene()
    ended = await scene.asked()
    page = await use_cases.list_messages(scene.me, scene.dialog.id, PageRequest(), scene.ports)
    assert [message.id for message in page.rows] == [ended.parent_id, ended.id]
    assert await use_cases.get_message(scene.me, scene.dialog.id, ended.id, scene.ports) == ended
    with pytest.raises(NotFound):
        await use_cases.get_message(scene.me, scene.dialog.id, nobody(), scene.ports)
    stranger = make_principal(tenant=scene.me.tenant)
    with pytest.raises(NotFound):
        await use_cases.list_messages(stranger, scene.dialog.id, PageRequest(), scene.ports)
    with pytest.raises(NotFound):
        await use_cases.get_message(stranger, scene.dialog.id, ended.id, scene.ports)
