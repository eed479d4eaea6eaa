"""Stock clients that send an Idempotency-Key: replays are answers like any other to them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

import anthropic
import openai
import pytest

from tests.sdk.conftest import Scene
from tests.support.gateway import Person
from tests.support.upstream import Answer, CutAfter, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = 50_000
MODELS = ("gpt-4o", "claude-sonnet-5", "gemini-2.5-flash")
CLIENTS = ("openai", "anthropic")
ANSWER = Answer(chunks=("Good ", "day", "."), usage=Usage(input=11, output=3))
Asking = Callable[..., Coroutine[Any, Any, tuple[Any, str]]]


def keyed(**more: Any) -> dict[str, Any]:
    """Options of a call with a key of its own."""
    return {"extra_headers": {"Idempotency-Key": f"key-{uuid4()}"}, **more}


async def asking_of(scene: Scene, person: Person, kind: str, model: str) -> Asking:
    """A call of the client, strict about what it gets: everything that it parsed, and the text."""
    request: dict[str, Any] = {"model": model, "max_tokens": 100}
    if kind == "openai":
        create: Any = (await scene.openai(person, _strict_response_validation=True)).chat.completions.create
    else:
        create = (await scene.anthropic(person, _strict_response_validation=True)).messages.create

    async def ask(question: str = "Hello there", *, stream: bool = False, **options: Any) -> tuple[Any, str]:
        messages = [{"role": "user", "content": question}]
        found = await create(messages=messages, stream=stream, **request, **options)
        if not stream:
            return found, found.choices[0].message.content if kind == "openai" else found.content[0].text
        parts = [part async for part in found]
        return parts, "".join(map(openai_text if kind == "openai" else anthropic_text, parts))

    return ask


def openai_text(chunk: Any) -> str:
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def anthropic_text(event: Any) -> str:
    return event.delta.text if event.type == "content_block_delta" else ""


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_repeated_call_parses_to_the_same_answer(scene: Scene, model: str, kind: str, stream: bool) -> None:
    scene.upstream.always(ANSWER)
    person = await scene.person(credit=CREDIT)
    ask = await asking_of(scene, person, kind, model)
    options = keyed(stream=stream)
    first, text = await ask(**options)
    assert text == "Good day."
    again, repeated = await ask(**options)
    assert repeated == text
    assert again == first
    assert len(scene.upstream.requests) == 1
    assert await scene.standing(person) == (CREDIT - 14, 0)


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-5"])
async def test_a_replay_says_that_it_is_one(scene: Scene, model: str) -> None:
    scene.upstream.always(ANSWER)
    client = await scene.openai()
    options = keyed(model=model, messages=[{"role": "user", "content": "Hello"}])
    answers = [await client.chat.completions.with_raw_response.create(**options) for _ in range(2)]
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
    assert answers[0].parse() == answers[1].parse()


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-5"])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_repetition_while_it_runs_is_raised_and_not_retried(scene: Scene, model: str, kind: str) -> None:
    gate = asyncio.Event()
    scene.upstream.always(Answer(text="Good day.", gate=gate))
    ask = await asking_of(scene, await scene.person(), kind, model)
    options = keyed()
    first = asyncio.create_task(ask(**options))
    await scene.upstream.wait_in_flight(1)
    with pytest.raises((openai.ConflictError, anthropic.ConflictError), match="still running"):
        await ask(**options)
    assert len(scene.sent) == 2
    gate.set()
    assert (await first)[1] == (await ask(**options))[1] == "Good day."
    assert len(scene.upstream.requests) == 1


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-5"])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_repetition_of_a_running_stream_hears_all_of_it(scene: Scene, model: str, kind: str) -> None:
    gate = asyncio.Event()
    scene.upstream.always(Answer(chunks=("Good ", "day", "."), gate=gate, gate_after=2))
    person = await scene.person(credit=CREDIT)
    ask = await asking_of(scene, person, kind, model)
    options = keyed(stream=True)
    asking = [asyncio.create_task(ask(**options))]
    await scene.upstream.wait_until(lambda up: bool(up.requests) and up.requests[-1].chunks_sent == 2)
    asking.append(asyncio.create_task(ask(**options)))
    gate.set()
    first, joined = await asyncio.gather(*asking)
    assert joined == first
    assert first[1] == "Good day."
    assert len(scene.upstream.requests) == 1


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_key_for_another_question_is_raised_as_what_it_is(scene: Scene, kind: str) -> None:
    ask = await asking_of(scene, await scene.person(), kind, "gpt-4o")
    options = keyed()
    await ask(**options)
    with pytest.raises(
        (openai.UnprocessableEntityError, anthropic.UnprocessableEntityError), match="different request"
    ):
        await ask("Something else?", **options)
    assert (len(scene.sent), len(scene.upstream.requests)) == (2, 1)


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-5"])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_stream_that_broke_is_raised_again_and_charged_once(scene: Scene, model: str, kind: str) -> None:
    scene.upstream.script(CutAfter(2, Answer(text="one two three four")))
    person = await scene.person(credit=CREDIT)
    ask = await asking_of(scene, person, kind, model)
    options = keyed(stream=True)
    for _ in range(2):
        with pytest.raises((openai.APIError, anthropic.APIError)):
            await ask(**options)
    assert len(scene.upstream.requests) == 1
    assert 0 < await scene.settled(person, CREDIT) < 20
