"""What a client's dialect can ask of a model of each kind, found out by asking."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from tests.compat.openai_speakers import ChatSpeaker, ResponsesSpeaker
from tests.compat.other_speakers import GeminiSpeaker, MessagesSpeaker
from tests.compat.seen import Ask, Seen, Speaker, events_in
from tests.support.gateway import ADMIN_KEY, RunningGateway
from tests.support.upstream import Answer, ErrorEvent, Fail, Mind, Upstream

SPEAKERS: tuple[Speaker, ...] = (ChatSpeaker(), ResponsesSpeaker(), MessagesSpeaker(), GeminiSpeaker())


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of upstream, with a model that thinks and one that lets itself be told how to sample."""

    name: str
    model: str
    thinker: str
    shows_thoughts: bool = False
    """OpenAI shows none in chat completions; the servers compatible with it do."""


KINDS = (
    Kind(name="OpenAI", model="gpt-4o", thinker="gpt-5"),
    Kind(name="Anthropic", model="claude-sonnet-4-5", thinker="claude-sonnet-4-5"),
    Kind(name="Google", model="gemini-2.5-flash", thinker="gemini-2.5-flash"),
    Kind(name="OpenAI-compatible", model="local/llama", thinker="local/thinker", shows_thoughts=True),
)

_PROVIDER = {"name": "local", "kind": "openai", "api_key_env": "OPENROUTER_API_KEY"}


class Refused(Exception):
    """The gateway said no, clearly."""


@dataclass(kw_only=True)
class Meter:
    """One speaker before one kind of upstream."""

    speaker: Speaker
    kind: Kind
    gateway: RunningGateway
    upstream: Upstream
    dropped: tuple[str, ...] = ()

    async def send(self, body: Mapping[str, Any], model: str, *, stream: bool, key: str = ADMIN_KEY) -> httpx2.Response:
        """The raw answer; what was dropped is remembered."""
        path = self.speaker.path(model, stream=stream)
        async with httpx2.AsyncClient(base_url=self.gateway.url, timeout=30, verify=False) as http:
            response = await http.post(path, json=body, headers=dict(self.speaker.headers(key)))
        if names := response.headers.get("x-gateway-dropped-params"):
            self.dropped = tuple(dict.fromkeys((*self.dropped, *names.split(","))))
        return response

    async def seen(self, body: Mapping[str, Any], model: str, *, stream: bool) -> Seen:
        """What the client reads. Raises Refused for a 400."""
        response = await self.send(body, model, stream=stream)
        if response.status_code == 400:
            raise Refused(self.speaker.error(response.json()))
        assert response.status_code == 200, response.text
        return self.speaker.streamed(events_in(response.content)) if stream else self.speaker.whole(response.json())

    async def ask(self, ask: Ask, model: str | None = None) -> Seen:
        """One question."""
        model = model or self.kind.model
        return await self.seen(self.speaker.body(model, ask), model, stream=ask.stream)


async def text(meter: Meter) -> None:
    """A question and an answer, with a system prompt."""
    seen = await meter.ask(Ask(text="hello there", system="Be brief."))
    assert (seen.text, seen.finish) == ("echo: hello there", meter.speaker.finishes["stop"])
    assert "Be brief." in str(meter.upstream.requests[-1].json)


async def streaming(meter: Meter) -> None:
    """The same as a stream."""
    seen = await meter.ask(Ask(text="one two three", stream=True))
    assert (seen.text, seen.finish) == ("echo: one two three", meter.speaker.finishes["stop"])


async def tools(meter: Meter) -> None:
    """A call and its result, whole and streamed."""
    for stream in (False, True):
        body = meter.speaker.body(meter.kind.model, Ask(text="call it", tools=True, stream=stream))
        seen = await meter.seen(body, meter.kind.model, stream=stream)
        assert [(call.name, call.arguments) for call in seen.calls] == [("look", {"q": "call it"})]
        assert seen.finish == meter.speaker.finishes["tools"]
        more = meter.speaker.with_results(body, seen, "forty-two")
        last = await meter.seen(more, meter.kind.model, stream=stream)
        assert "result: " in last.text
        assert "forty-two" in last.text


async def parallel_tools(meter: Meter) -> None:
    """Two calls at once, with both results."""
    body = meter.speaker.body(meter.kind.model, Ask(text="call twice", tools=True, stream=True))
    seen = await meter.seen(body, meter.kind.model, stream=True)
    assert len(seen.calls) == 2
    assert len({call.id for call in seen.calls}) in (1, 2)
    last = await meter.seen(meter.speaker.with_results(body, seen, "both"), meter.kind.model, stream=True)
    assert last.text.count("both") == 2


async def images(meter: Meter) -> None:
    """A picture in the question."""
    seen = await meter.ask(Ask(text="what is this?", image=True))
    assert seen.text.startswith("image: image/png "), seen.text


async def structured_output(meter: Meter) -> None:
    """JSON by a schema."""
    for stream in (False, True):
        seen = await meter.ask(Ask(text="a thing", schema=True, stream=stream))
        assert json.loads(seen.text) == {"name": "x", "count": 1}


async def reasoning(meter: Meter) -> str | None:
    """Thoughts wished for; given back with the next turn, where there is a tool in it."""
    shown = []
    for stream in (False, True):
        body = meter.speaker.body(
            meter.kind.thinker, Ask(text="call and think", thinks=True, tools=True, stream=stream)
        )
        seen = await meter.seen(body, meter.kind.thinker, stream=stream)
        assert seen.calls
        last = await meter.seen(meter.speaker.with_results(body, seen, "fine"), meter.kind.thinker, stream=stream)
        assert "fine" in last.text
        assert seen.thoughts in ("", "thinking about call and think")
        shown.append(bool(seen.thoughts))
    assert len(set(shown)) == 1
    return None if shown[0] else "thoughts are not shown"


async def usage(meter: Meter) -> None:
    """Tokens, those from a cache too."""
    for stream in (False, True):
        seen = await meter.ask(Ask(text="one two cached four", stream=stream))
        assert (seen.input_tokens, seen.output_tokens, seen.cached_tokens) == (4, 5, 2)


async def stop_reasons(meter: Meter) -> str | None:
    """The end of the text, of the tokens allowed, and a stop sequence."""
    long = " ".join(f"word{number}" for number in range(40))
    finishes = meter.speaker.finishes
    untold = False
    for stream in (False, True):
        cut = await meter.ask(Ask(text=long, most_tokens=16, stream=stream))
        assert cut.finish == finishes["length"]
        if finishes["sequence"]:
            stopped = await meter.ask(Ask(text="one two STOP three", stop="STOP", stream=stream))
            assert stopped.text.strip() == "echo: one two"
            assert stopped.finish in (finishes["sequence"], finishes["stop"])
            untold |= stopped.finish != finishes["sequence"]
    return f"the provider does not tell a stop sequence from {finishes['stop']}" if untold else None


async def errors(meter: Meter) -> None:
    """Refusals of ours and failures of the provider's, in the client's own shape, in the middle of a stream too."""
    speaker, model, ask = meter.speaker, meter.kind.model, Ask(text="hello")
    unknown = await meter.send(speaker.body("nobody/knows", ask), "nobody/knows", stream=False)
    stranger = await meter.send(speaker.body(model, ask), model, stream=False, key="sk-gw-nobody")
    assert (unknown.status_code, stranger.status_code) == (404, 401)
    meter.upstream.script(Fail(status=500), Fail(status=400, message="your request is odd"))
    failed = await meter.send(speaker.body(model, ask), model, stream=False)
    odd = await meter.send(speaker.body(model, ask), model, stream=True)
    assert (failed.status_code, odd.status_code) == (502, 400)
    messages = [speaker.error(each.json()) for each in (unknown, stranger, failed, odd)]
    assert all(messages)
    assert "your request is odd" in messages[-1]
    meter.upstream.script(ErrorEvent(after=1, status=503, answer=Answer(chunks=("one ", "two"))))
    cut = await meter.send(speaker.body(model, replace(ask, stream=True)), model, stream=True)
    last = list(events_in(cut.content))[-1]
    assert cut.status_code == 200
    if last.get("type") == "response.failed":
        assert last["response"]["error"]["message"]
    else:
        assert speaker.error(last)


async def parameters(meter: Meter) -> None:
    """Everything else that stock clients set: what the model cannot be told is named."""
    for stream in (False, True):
        seen = await meter.ask(Ask(text="hello there", extra=meter.speaker.wishes, stream=stream))
        assert seen.text == "echo: hello there"


Feature = Callable[[Meter], Awaitable[str | None]]

FEATURES: Mapping[str, Feature] = {
    "text": text,
    "streaming": streaming,
    "tools": tools,
    "parallel tools": parallel_tools,
    "images": images,
    "structured output": structured_output,
    "reasoning": reasoning,
    "usage": usage,
    "stop reasons": stop_reasons,
    "errors": errors,
    "other parameters": parameters,
}


async def verdict(meter: Meter, feature: Feature) -> str:
    """Whether it works, what it drops, or why it is refused. Anything else is a failure."""
    meter.upstream.reset()
    meter.upstream.always(Mind(answer=Answer(shows_reasoning=meter.kind.shows_thoughts)))
    meter.dropped = ()
    try:
        but = await feature(meter)
    except Refused as refused:
        return f"refused: {refused}"
    told = [*([but] if but else []), *([f"drops `{'`, `'.join(sorted(meter.dropped))}`"] if meter.dropped else [])]
    return "; ".join(["yes", *told])


async def prepare(gateway: RunningGateway, upstream: Upstream) -> None:
    """The models that the catalog does not have by itself."""
    for path, body in (
        ("providers", {**_PROVIDER, "base_url": upstream.openai_base_url}),
        ("models", _local("local/llama", "llama-4")),
        ("models", _local("local/thinker", "gpt-oss-120b")),
    ):
        made = await gateway.http.post(f"/api/v1/admin/{path}", json=body)
        assert made.status_code in (200, 201), made.text


def _local(name: str, upstream: str) -> dict[str, Any]:
    more = {"context_window": 100_000, "max_output": 8_000, "price": {"input": 1, "output": 2}}
    return {"name": name, "provider": _PROVIDER["name"], "upstream": upstream, **more}
