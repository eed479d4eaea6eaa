"""LangChain and pydantic-ai over Google's dialect; run in `.venv/clients`, for they want google-genai 2."""

import os
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_google_genai.chat_models import ChatGoogleGenerativeAIError
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.google import GoogleProvider

URL = os.environ["GATEWAY_URL"]
KEY = os.environ["GATEWAY_KEY"]
KEY_WITHOUT_CREDIT = os.environ["GATEWAY_KEY_WITHOUT_CREDIT"]
GEMINI = "gemini-2.5-flash"
QUESTION, CALL = "Hello there", "Please call the tool"

every_model = pytest.mark.parametrize("model", [GEMINI, "gpt-4o", "claude-sonnet-5"])


class Question(BaseModel):
    """What an answer must look like; the arguments of the upstream's calls do too."""

    q: str


@tool
def look_up(q: str) -> str:
    """Look something up."""
    return f"looked up {q}"


def langchain(model: str, key: str = KEY, **options: Any) -> ChatGoogleGenerativeAI:
    return ChatGoogleGenerativeAI(model=model, google_api_key=key, base_url=URL, **options)


def pydantic_ai(model: str, key: str = KEY, **options: Any) -> Agent[Any, Any]:
    return Agent(GoogleModel(model, provider=GoogleProvider(api_key=key, base_url=URL)), **options)


@every_model
def test_langchain_gets_an_answer(model: str) -> None:
    answer = langchain(model).invoke([("system", "Be brief."), ("human", QUESTION)])
    assert answer.text == f"echo: {QUESTION}"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 3


@every_model
def test_langchain_streams(model: str) -> None:
    pieces = [chunk.text for chunk in langchain(model).stream(QUESTION)]
    assert "".join(pieces) == f"echo: {QUESTION}"
    assert len(pieces) > 1


@every_model
def test_langchain_uses_a_tool(model: str) -> None:
    bound = langchain(model).bind_tools([look_up])
    asked = HumanMessage(CALL)
    first = bound.invoke([asked])
    assert isinstance(first, AIMessage)
    assert first.tool_calls[0]["args"] == {"q": CALL}
    answer = bound.invoke([asked, first, look_up.invoke(first.tool_calls[0])])
    assert f"looked up {CALL}" in answer.text


@every_model
def test_langchain_gets_an_object(model: str) -> None:
    asked = langchain(model).with_structured_output(Question, method="json_schema")
    assert isinstance(asked.invoke(QUESTION), Question)


def test_langchain_hears_clearly_that_the_quota_is_exhausted() -> None:
    with pytest.raises(ChatGoogleGenerativeAIError, match=r"RESOURCE_EXHAUSTED[\s\S]*quota of tokens"):
        langchain(GEMINI, KEY_WITHOUT_CREDIT).invoke(QUESTION)


@every_model
def test_pydantic_ai_gets_an_answer(model: str) -> None:
    answer = pydantic_ai(model, instructions="Be brief.").run_sync(QUESTION)
    assert answer.output == f"echo: {QUESTION}"
    assert answer.usage.output_tokens == 3


@every_model
def test_pydantic_ai_streams(model: str) -> None:
    answer = pydantic_ai(model).run_stream_sync(QUESTION)
    pieces = list(answer.stream_text(delta=True, debounce_by=None))
    assert "".join(pieces) == f"echo: {QUESTION}"
    assert len(pieces) > 1


@every_model
def test_pydantic_ai_uses_a_tool(model: str) -> None:
    answer = pydantic_ai(model, tools=[look_up.func]).run_sync(CALL)
    assert f"looked up {CALL}" in answer.output


@every_model
def test_pydantic_ai_gets_an_object(model: str) -> None:
    assert isinstance(pydantic_ai(model, output_type=Question).run_sync(QUESTION).output, Question)


def test_pydantic_ai_hears_clearly_that_the_quota_is_exhausted() -> None:
    with pytest.raises(ModelHTTPError, match="RESOURCE_EXHAUSTED"):
        pydantic_ai(GEMINI, KEY_WITHOUT_CREDIT).run_sync(QUESTION)
