"""Stock clients take an answer from the response cache for what it is: an answer like any other."""

from typing import Any
from uuid import uuid4

import anthropic
import openai
import pytest

from tests.sdk.conftest import Scene
from tests.sdk.test_idempotency import ANSWER, CLIENTS, CREDIT, MODELS, asking_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

RELAYED = {("openai", "gpt-4o"), ("anthropic", "claude-sonnet-5")}


def cached(**more: Any) -> dict[str, Any]:
    """Options of a call whose answer may be kept, and given."""
    return {"extra_headers": {"x-gateway-cache": "on"}, **more}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_from_the_cache_parses_to_the_same_words(
    scene: Scene, model: str, kind: str, stream: bool
) -> None:
    scene.upstream.always(ANSWER)
    person = await scene.person(credit=CREDIT)
    ask = await asking_of(scene, person, kind, model)
    question = f"Hello there, {uuid4()}"
    first, text = await ask(question, **cached(stream=stream))
    again, repeated = await ask(question, **cached(stream=stream))
    assert text == repeated == "Good day."
    if (kind, model) in RELAYED:
        assert again == first
    assert len(scene.upstream.requests) == 1
    assert await scene.standing(person) == (CREDIT - 14, 0)


@pytest.mark.parametrize("model", MODELS)
async def test_it_ends_as_the_first_one_did_and_says_where_it_is_from(scene: Scene, model: str) -> None:
    scene.upstream.always(ANSWER)
    client = await scene.openai(_strict_response_validation=True)
    messages = [{"role": "user", "content": f"Hello there, {uuid4()}"}]
    create = client.chat.completions.with_raw_response.create
    answers = [await create(model=model, messages=messages, **cached()) for _ in range(2)]
    assert [answer.headers["x-gateway-cache"] for answer in answers] == ["miss", "hit"]
    choices = [answer.parse().choices[0] for answer in answers]
    assert choices[0] == choices[1]
    assert choices[1].finish_reason == "stop"


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_wish_that_is_none_is_raised_as_a_bad_request(scene: Scene, kind: str) -> None:
    ask = await asking_of(scene, await scene.person(), kind, "gpt-4o")
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match="on, off or refresh"):
        await ask(extra_headers={"x-gateway-cache": "sometimes"})
