"""LangChain talks to any model behind the gateway, over each dialect that it speaks."""

from typing import Any

import anthropic
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.sdk.conftest import Scene
from tests.support.gateway import ADMIN_KEY
from tests.support.upstream import Mind

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ("gpt-4o", "claude-sonnet-5", "gemini-2.5-flash")
DIALECTS = ("chat", "responses", "messages")
HELLO = [("system", "Be brief."), ("human", "Hello there")]
CALL = "Please call the tool"

every_dialect = pytest.mark.parametrize("dialect", DIALECTS)
every_model = pytest.mark.parametrize("model", MODELS)


class Question(BaseModel):
    """What an answer must look like; the arguments of the upstream's calls do too."""

    q: str


@tool
def look_up(q: str) -> str:
    """Look something up."""
    return f"looked up {q}"


def client(scene: Scene, dialect: str, model: str, key: str = ADMIN_KEY, **options: Any) -> BaseChatModel:
    """LangChain's client of a dialect; at another base URL, ChatOpenAI asks for a stream's usage only when told to."""
    scene.upstream.always(Mind())
    if dialect == "messages":
        return ChatAnthropic(model=model, api_key=key, base_url=scene.gateway.url, **options)
    uses_responses = dialect == "responses"
    base_url = f"{scene.gateway.url}/v1"
    asked = {"use_responses_api": uses_responses, "stream_usage": True, **options}
    return ChatOpenAI(model=model, api_key=key, base_url=base_url, **asked)


@every_dialect
@every_model
async def test_every_model_answers(scene: Scene, dialect: str, model: str) -> None:
    answer = await client(scene, dialect, model).ainvoke(HELLO)
    assert answer.text == "echo: Hello there"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 3


@every_dialect
@every_model
async def test_every_model_streams(scene: Scene, dialect: str, model: str) -> None:
    pieces = [piece async for piece in client(scene, dialect, model).astream(HELLO)]
    whole = sum(pieces[1:], pieces[0])
    assert isinstance(whole, AIMessageChunk)
    assert whole.text == "echo: Hello there"
    assert len([piece for piece in pieces if piece.text]) > 1
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 3


@every_dialect
@every_model
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
async def test_every_model_uses_a_tool(scene: Scene, dialect: str, model: str, streaming: bool) -> None:
    bound = client(scene, dialect, model, streaming=streaming).bind_tools([look_up])
    asked = HumanMessage(CALL)
    first = await bound.ainvoke([asked])
    assert isinstance(first, AIMessage)
    assert [(call["name"], call["args"]) for call in first.tool_calls] == [("look_up", {"q": CALL})]
    answer = await bound.ainvoke([asked, first, await look_up.ainvoke(first.tool_calls[0])])
    assert answer.text == f"result: looked up {CALL}"


@every_dialect
@every_model
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_every_model_gives_an_object(scene: Scene, dialect: str, model: str, method: Any) -> None:
    asked = client(scene, dialect, model).with_structured_output(Question, method=method)
    assert isinstance(await asked.ainvoke(HELLO), Question)


@every_dialect
async def test_an_exhausted_quota_is_one_request_and_one_clear_error(scene: Scene, dialect: str) -> None:
    poor = await scene.person(credit=1)
    before = await scene.refusals()
    model = "claude-sonnet-5" if dialect == "messages" else "gpt-4o"
    with pytest.raises((openai.RateLimitError, anthropic.APIStatusError), match="quota of tokens") as refused:
        await client(scene, dialect, model, key=poor.secret).ainvoke(HELLO)
    assert refused.value.status_code == (402 if dialect == "messages" else 429)
    assert await scene.refusals() == before + 1
