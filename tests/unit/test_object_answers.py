"""Answers that are no objects, of servers that give objects alone."""

from dataclasses import replace
from typing import Any

import pytest

from src.domain.completion.content import Text, ToolCall
from src.domain.completion.deltas import TextDelta, ToolCallDelta
from src.domain.completion.model import ChatRequest, Finished, FinishReason, Parameters, Reply, UpstreamRequest
from src.domain.completion.tools import ResponseFormat
from src.integrations.llm.openai.object_answers import AnswersInObjects
from tests.unit.support import make_model
from tests.unit.test_custom_tools import Recording

LIST = {"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": {"type": "string"}}}
DONE = Finished(reason=FinishReason.STOP)
CUT = Finished(reason=FinishReason.LENGTH)


def asking(schema: Any) -> UpstreamRequest:
    parameters = Parameters(response_format=ResponseFormat(schema=schema, strict=True))
    return UpstreamRequest(model=make_model(), chat=ChatRequest(messages=(), parameters=parameters))


async def told(text: str, size: int, done: Finished) -> str:
    """Streamed in pieces."""
    pieces = [TextDelta(text[at : at + size]) for at in range(0, len(text), size)]
    events = [event async for event in AnswersInObjects(Recording(*pieces, done)).stream(asking(LIST))]
    assert events[-1] == done
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"answer":["a"]}', '["a"]'),
        (' {\n "answer" : [ {"b": "} "}, {} ]\n }\n', '[ {"b": "} "}, {} ]'),
        ('{"answer":{"a":{"b":{}}}}', '{"a":{"b":{}}}'),
        ('{"answer":"a }} "}', '"a }} "'),
        ('{"answers":["a"]}', '{"answers":["a"]}'),
        ("I will not.", "I will not."),
        ('["a"]', '["a"]'),
        ("", ""),
        ("{", "{"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
async def test_an_answer_comes_out_of_its_object(text: str, answer: str, size: int) -> None:
    assert await told(text, size, DONE) == answer
    call = ToolCall(id="c", name="f", arguments="{}")
    for parts in ((), (Text(text=text), call)):
        reply = Reply(text=text, parts=parts, finished=DONE)
        whole = await AnswersInObjects(Recording(reply=reply)).complete(asking(LIST))
        assert whole == replace(reply, text=answer, parts=parts and (Text(text=answer), call))


@pytest.mark.parametrize("size", [1, 100])
async def test_an_answer_that_was_cut_keeps_what_came(size: int) -> None:
    assert await told('{"answer":[{"a":{}}', size, CUT) == '[{"a":{}}'


@pytest.mark.parametrize("begun", ["", '{"answer":', '{"answer":[1'])
async def test_blanks_without_an_end_are_gone_through_once(begun: str) -> None:
    """Models that are lost write them until they are stopped."""
    blanks = 200_000 * "\n"
    left = blanks if begun.endswith("1") else begun + blanks
    assert await told(begun + blanks, 4, CUT) == ("[1" if begun.endswith("1") else "") + left


async def test_the_server_is_asked_for_an_object_whose_references_lead_somewhere() -> None:
    inner = Recording(ToolCallDelta(0, "c", "f"), DONE)
    assert [event async for event in AnswersInObjects(inner).stream(asking(LIST))] == [ToolCallDelta(0, "c", "f"), DONE]
    wanted = inner.asked[0].chat.parameters.response_format
    assert wanted == ResponseFormat(
        schema={
            "type": "object",
            "properties": {"answer": {"type": "array", "items": {"$ref": "#/$defs/A"}}},
            "required": ["answer"],
            "additionalProperties": False,
            "$defs": {"A": {"type": "string"}},
        },
        strict=True,
    )


@pytest.mark.parametrize("schema", [{"type": "object"}, None])
async def test_who_wants_an_object_gets_it_as_it_is(schema: Any) -> None:
    reply = Reply(text='{"answer":1}', finished=DONE)
    inner = Recording(TextDelta('{"answer":1}'), DONE, reply=reply)
    model = AnswersInObjects(inner)
    assert await model.complete(asking(schema)) == reply
    assert [event async for event in model.stream(asking(schema))] == [TextDelta('{"answer":1}'), DONE]
    assert inner.asked == [asking(schema)] * 2
