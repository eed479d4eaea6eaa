"""pydantic-ai talks to any model behind the gateway, over each dialect that it speaks."""

from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.sdk.conftest import Scene
from tests.support.upstream import Mind

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ("gpt-4o", "claude-sonnet-5", "gemini-2.5-flash")
DIALECTS = ("chat", "responses", "messages")
CALL = "Please call the tool"
# pydantic-ai itself refuses native output over messages for models that it does not know as Anthropic's.
OBJECTS = [
    (dialect, model, output)
    for dialect in DIALECTS
    for model in MODELS
    for output in (NativeOutput, ToolOutput)
    if dialect != "messages" or model.startswith("claude") or output is ToolOutput
]

every_dialect = pytest.mark.parametrize("dialect", DIALECTS)
every_model = pytest.mark.parametrize("model", MODELS)


class Question(BaseModel):
    """What an answer must look like; the arguments of the upstream's calls do too."""

    q: str


def look_up(q: str) -> str:
    """Look something up."""
    return f"looked up {q}"


async def model_of(scene: Scene, dialect: str, name: str, person: Any = None) -> Model:
    """pydantic-ai's model of a dialect, over a stock client."""
    scene.upstream.always(Mind())
    if dialect == "messages":
        return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=await scene.anthropic(person)))
    provider = OpenAIProvider(openai_client=await scene.openai(person))
    return (OpenAIChatModel if dialect == "chat" else OpenAIResponsesModel)(name, provider=provider)


@every_dialect
@every_model
async def test_every_model_answers(scene: Scene, dialect: str, model: str) -> None:
    answer = await Agent(await model_of(scene, dialect, model), instructions="Be brief.").run("Hello there")
    assert answer.output == "echo: Hello there"
    assert answer.usage.output_tokens == 3


@every_dialect
@every_model
async def test_every_model_streams(scene: Scene, dialect: str, model: str) -> None:
    async with Agent(await model_of(scene, dialect, model)).run_stream("Hello there") as answer:
        pieces = [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == "echo: Hello there"
    assert len(pieces) > 1
    assert answer.usage.output_tokens == 3


@every_dialect
@every_model
async def test_every_model_uses_a_tool(scene: Scene, dialect: str, model: str) -> None:
    answer = await Agent(await model_of(scene, dialect, model), tools=[look_up]).run(CALL)
    assert answer.output == f"result: looked up {CALL}"
    assert answer.usage.requests == 2


@every_dialect
@every_model
async def test_every_model_uses_a_tool_in_a_stream(scene: Scene, dialect: str, model: str) -> None:
    async with Agent(await model_of(scene, dialect, model), tools=[look_up]).run_stream(CALL) as answer:
        assert await answer.get_output() == f"result: looked up {CALL}"


@pytest.mark.parametrize(("dialect", "model", "output"), OBJECTS)
async def test_every_model_gives_an_object(scene: Scene, dialect: str, model: str, output: Any) -> None:
    answer = await Agent(await model_of(scene, dialect, model), output_type=output(Question)).run("Hello there")
    assert isinstance(answer.output, Question)


@every_dialect
async def test_an_exhausted_quota_is_one_request_and_one_clear_error(scene: Scene, dialect: str) -> None:
    poor = await scene.person(credit=1)
    model = await model_of(scene, dialect, "claude-sonnet-5" if dialect == "messages" else "gpt-4o", poor)
    before = await scene.refusals()
    with pytest.raises(ModelHTTPError, match="quota of tokens") as refused:
        await Agent(model).run("Hello there")
    assert refused.value.status_code == (402 if dialect == "messages" else 429)
    assert await scene.refusals() == before + 1
