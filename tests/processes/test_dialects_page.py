"""What docs/dialects.md says is so: its blocks run, its endpoints are all there are, its numbers those of the code."""

import asyncio
import re
from typing import Any

from src.api.deps import MAX_DEPTH
from src.api.dialects import fields
from src.api.errors import Dialect, error_body, status_of
from src.api.main import create_app
from src.api.routes.conversations import MAX_NEW_ITEMS
from src.domain.completion.idempotency import MAX_KEPT_BYTES, KeyReused
from src.domain.dialogs import responding, sending
from src.integrations.llm.reasoning import BUDGETS
from src.shared.errors import (
    BodyTooLarge,
    Conflict,
    GatewayError,
    InvalidRequest,
    MalformedBody,
    NotAllowed,
    NotFound,
    ProvidersFailed,
    ProvidersResting,
    ProvidersTimedOut,
    QuotaExceeded,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from tests.processes.conftest import Operator
from tests.processes.documented import document, objects_in, ran, rows_of
from tests.support.gateway import ADMIN_KEY
from tests.support.upstream import Answer, ToolCall

PAGE = document("docs/dialects.md")
WEATHER = (
    Answer(tool_calls=(ToolCall(name="weather", arguments={"city": "Paris"}),)),
    Answer(text="It is sunny in Paris."),
)
ERRORS: dict[str, GatewayError] = {
    "not JSON": MalformedBody("x"),
    "a wrong field": InvalidRequest("x"),
    "the `Idempotency-Key` with another body": KeyReused("x"),
    "no or a wrong credential": Unauthenticated("x"),
    "not allowed": NotAllowed("x"),
    "unknown, or somebody else's": NotFound("x"),
    "a conflict": Conflict("x"),
    "quota exhausted": QuotaExceeded("x"),
    "rate limit": RateLimited("x", retry_after_s=1),
    "body too large": BodyTooLarge("x"),
    "providers failed": ProvidersFailed("x"),
    "providers too late": ProvidersTimedOut("x"),
    "providers resting": ProvidersResting("x", retry_after_s=1),
    "shutting down or overloaded": Unavailable("x"),
}


async def test_the_tested_blocks_do_what_the_page_says(operator: Operator) -> None:
    gateway = await operator.started(operator.configured())
    operator.upstream.script(*WEATHER, *WEATHER, *WEATHER)
    outputs = await asyncio.to_thread(ran, PAGE, gateway.port, operator.directory, GATEWAY_KEY=ADMIN_KEY)
    chat, messages, gemini, responses, resumed, both, vectors, dropped = outputs

    assert chat == 'weather {"city":"Paris"}\nIt is sunny in Paris.\n'
    assert re.fullmatch(r"\d+\nweather {'city': 'Paris'}\nIt is sunny in Paris.\n", messages)
    assert re.fullmatch(r"It is sunny in Paris. \d+\n", gemini)
    assert responses.splitlines() == ["echo: What is my name?"] * 2 + ["['message', 'message', 'message']"]
    assert resumed == "echo: Count to five."
    _check_both_ways(both)
    assert vectors == "text-embedding-3-small [256, 256]\ngemini-embedding-001 [256, 256]\n"
    assert dropped.strip() == "x-gateway-dropped-params: logit_bias,seed"


def _check_both_ways(output: str) -> None:
    back, told_again, items = objects_in(output)
    said = [item["content"][0]["text"] for item in items["data"]]
    assert said[::2] == ["My name is Ann.", "What is my name?", "Say it again."]
    assert (told_again["output"][0], back["output"][0]["id"]) == (items["data"][1], items["data"][5]["id"])


def test_the_page_names_every_endpoint_and_no_other() -> None:
    rows = rows_of(PAGE, "| dialect | endpoint | what |")
    named = [re.sub(r"{model}(:{verb})?|{id}", "{}", row[1].strip("`")) for row in rows]
    served = [
        f"{method.upper()} {re.sub('{.*?}', '{}', path)}"
        for path, methods in create_app().openapi()["paths"].items()
        for method, told in methods.items()
        if "compatible" in told["tags"]
    ]
    assert sorted(named) == sorted(served)


def test_the_errors_of_the_page_are_those_of_the_table() -> None:
    rows = rows_of(PAGE, "| what | native | OpenAI | Anthropic | Google |")
    assert {what: cells for what, *cells in rows} == {what: _cells(error) for what, error in ERRORS.items()}


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    told = dict(rows_of(PAGE, "| of | most |"))
    numbers = {
        what: [int(each.replace(",", "")) for each in re.findall(r"\d[\d,]*", most)] for what, most in told.items()
    }
    assert numbers == {
        "a body": [10, MAX_DEPTH],
        "messages or items of a request": [fields.MAX_MESSAGES],
        "messages read for the context of a response": [responding.MAX_HISTORY, sending.MAX_HISTORY],
        "new items of a conversation at once": [MAX_NEW_ITEMS],
        "inputs of one request for vectors": [fields.MAX_INPUTS],
        "`metadata`": [fields.MAX_METADATA, 512, 64],
        "an answer kept for its `Idempotency-Key`": [MAX_KEPT_BYTES // 2**20],
    }


def _cells(error: GatewayError) -> list[str]:
    def told(dialect: Dialect, name: str) -> str:
        body: dict[str, Any] = error_body(error, dialect, "x")["error"]
        return f"{status_of(error, dialect)} {body[name]}"

    openai, anthropic = told(Dialect.OPENAI, "type"), told(Dialect.ANTHROPIC, "type")
    return [str(status_of(error, Dialect.NATIVE)), openai, anthropic, told(Dialect.GEMINI, "status")]


def test_the_budgets_of_the_page_are_those_that_models_are_told() -> None:
    [efforts] = re.findall(r"^\| effort \| (.*) \|$", PAGE, re.MULTILINE)
    [budgets] = re.findall(r"^\| tokens \| (.*) \|$", PAGE, re.MULTILINE)
    assert dict(zip(efforts.split(" | "), map(int, budgets.split(" | ")), strict=True)) == BUDGETS
