"""Callers that talk to gateways through every door at once, and remember exactly what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import uuid4

import aiohttp
import orjson

MODELS = ("gpt-4o", "claude-3-opus")
MOST_WORDS = 12
MAX_OUTPUT_TOKENS = 60
QUESTIONS_A_DIALOG = 12
PAUSE_S = 0.1
"""After anything but an answer."""
PATIENCE_S = 60.0
"""Longer than the gateway waits for anything: whoever hears nothing for so long hangs."""


class Outcome(StrEnum):
    """How a call ended, as its caller sees it."""

    UNDER_WAY = "under way"
    ANSWERED = "answered"
    REFUSED = "refused, no credit"
    CUT = "cut off"
    """The connection broke before the last event."""
    BROKEN = "broken off"
    """The answer had begun and ended in an error that the gateway told."""
    UNREACHABLE = "nobody listened"
    FAILED = "failed"
    HUNG = "hung"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an answer said. `cost_micro_usd` is None where the door has no place for it."""

    text: str
    tokens: int
    cost_micro_usd: int | None = None
    message_id: str | None = None


@dataclass(slots=True, kw_only=True)
class Sent:
    """One call. `told` is there when it was acknowledged: the whole answer came, to its last event."""

    request_id: str
    customer: str
    door: str
    question: str
    dialog_id: str | None = None
    outcome: Outcome = Outcome.UNDER_WAY
    status: int = 0
    words: str = ""
    told: Told | None = None


@dataclass(slots=True, kw_only=True)
class Customer:
    """A user with an API key, and the credit they were given so far, by unit."""

    id: str
    name: str
    secret: str
    key_id: str
    credit: dict[str, int] = field(default_factory=dict)


class NotTold(Exception):
    """A stream ended without its last event."""


class _Refused(Exception):
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


@dataclass(slots=True, kw_only=True)
class Load:
    """`callers` at a time for every customer, at gateways picked at random, until `stop`."""

    addresses: list[str]
    customers: list[Customer]
    callers: int = 3
    seed: int = 7
    sent: list[Sent] = field(default_factory=list)
    _is_stopping: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        for number in range(self.callers):
            for customer in self.customers:
                chance = random.Random(f"{self.seed} {customer.name} {number}")
                self._tasks.append(asyncio.create_task(self._keep_asking(customer, chance)))

    async def stop(self) -> None:
        """Wait for what is under way, and begin nothing new."""
        self._is_stopping = True
        await asyncio.gather(*self._tasks)

    def ended(self, outcome: Outcome) -> list[Sent]:
        """The calls that ended so, until now."""
        return [call for call in self.sent if call.outcome is outcome]

    async def _keep_asking(self, customer: Customer, chance: random.Random) -> None:
        headers = {"authorization": f"Bearer {customer.secret}"}
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
            dialogs = _Dialogs(http)
            while not self._is_stopping:
                outcome = await self._ask(http, dialogs, customer, chance)
                if outcome is not Outcome.ANSWERED:
                    await asyncio.sleep(PAUSE_S)

    async def _ask(
        self, http: aiohttp.ClientSession, dialogs: _Dialogs, customer: Customer, chance: random.Random
    ) -> Outcome:
        door = chance.choice(DOORS)
        address = chance.choice(self.addresses)
        words = " ".join(chance.choices(("one", "two", "three", "four"), k=chance.randint(1, MOST_WORDS)))
        call = Sent(
            request_id=f"load-{uuid4()}", customer=customer.name, door=door.name, question=f"{words} {uuid4().hex}"
        )
        self.sent.append(call)
        with _noting(call):
            if door.path == NATIVE_PATH:
                call.dialog_id = await dialogs.current(address, call)
            await _carry_out(http, address, door, call, chance.choice(MODELS))
        return call.outcome


@dataclass(slots=True)
class _Dialogs:
    """The dialog a caller is in; a new one after some questions."""

    http: aiohttp.ClientSession
    _id: str | None = None
    _asked: int = 0

    async def current(self, address: str, call: Sent) -> str:
        """Raises _Refused where it cannot be opened now."""
        if self._id is None or self._asked >= QUESTIONS_A_DIALOG:
            self._id = None
            async with self.http.post(f"{address}/api/v1/dialogs", json={}) as response:
                await _check(response, call)
                self._id, self._asked = str((await response.json())["id"]), 0
        self._asked += 1
        return self._id


async def _carry_out(http: aiohttp.ClientSession, address: str, door: Door, call: Sent, model: str) -> None:
    url = address + door.path.format(call.dialog_id)
    headers = {"x-request-id": call.request_id}
    async with http.post(url, json=door.body(call.question, model), headers=headers) as response:
        await _check(response, call)
        call.told = await door.read(response)
        call.outcome = Outcome.ANSWERED


async def _check(response: aiohttp.ClientResponse, call: Sent) -> None:
    call.status = response.status
    if response.status >= 400:
        call.words = await response.text()
        has_no_credit = response.status in (402, 429) and response.headers.get("x-should-retry") == "false"
        raise _Refused(Outcome.REFUSED if has_no_credit else Outcome.FAILED)


@contextlib.contextmanager
def _noting(call: Sent) -> Iterator[None]:
    """How the call ends, unless it is answered."""
    try:
        yield
    except _Refused as error:
        call.outcome = error.outcome
    except NotTold as error:
        call.words = str(error)
        call.outcome = Outcome.BROKEN if call.words else Outcome.CUT
    except aiohttp.ClientConnectorError:
        call.outcome = Outcome.UNREACHABLE
    except TimeoutError:
        call.outcome = Outcome.HUNG
    except (aiohttp.ClientError, OSError):
        call.outcome = Outcome.CUT


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """The data of each event; raises NotTold for an error among them."""
    async for line in response.content:
        if not line.startswith(b"data: "):
            continue
        data = line.removeprefix(b"data: ").strip()
        found = data.decode() if data == b"[DONE]" else orjson.loads(data)
        if isinstance(found, dict) and "error" in found:
            raise NotTold(data.decode())
        yield found


async def _native_whole(response: aiohttp.ClientResponse) -> Told:
    return _of_message((await response.json())["message"])


async def _native_stream(response: aiohttp.ClientResponse) -> Told:
    created: Any = None
    async for found in _events(response):
        created = created or found
        if found is not created and "message" in found:
            return _of_message(found["message"])
    raise NotTold


def _of_message(message: Any) -> Told:
    if message["status"] != "completed":
        raise NotTold(str(message))
    return Told(
        text=message["content"],
        tokens=message["usage"]["total_tokens"],
        cost_micro_usd=message["cost_micro_usd"],
        message_id=message["id"],
    )


async def _openai_whole(response: aiohttp.ClientResponse) -> Told:
    found = await response.json()
    return Told(
        text=found["choices"][0]["message"]["content"],
        tokens=found["usage"]["total_tokens"],
        cost_micro_usd=_cost(response),
    )


async def _openai_stream(response: aiohttp.ClientResponse) -> Told:
    text, tokens = "", 0
    async for found in _events(response):
        if found == "[DONE]":
            return Told(text=text, tokens=tokens)
        text += "".join(choice["delta"].get("content") or "" for choice in found["choices"])
        tokens = (found.get("usage") or {}).get("total_tokens", tokens)
    raise NotTold


async def _anthropic_whole(response: aiohttp.ClientResponse) -> Told:
    found = await response.json()
    usage = found["usage"]
    tokens = usage["input_tokens"] + usage["output_tokens"]
    return Told(text="".join(part["text"] for part in found["content"]), tokens=tokens, cost_micro_usd=_cost(response))


async def _anthropic_stream(response: aiohttp.ClientResponse) -> Told:
    text = ""
    usage: dict[str, int] = {}
    async for found in _events(response):
        match found["type"]:
            case "message_start":
                usage |= found["message"]["usage"]
            case "content_block_delta":
                text += found["delta"]["text"]
            case "message_delta":
                usage |= found["usage"]
            case "message_stop":
                return Told(text=text, tokens=usage["input_tokens"] + usage["output_tokens"])
    raise NotTold


def _cost(response: aiohttp.ClientResponse) -> int:
    return int(response.headers["x-gateway-cost-micro-usd"])


def _native_body(question: str, model: str) -> dict[str, Any]:
    return {"content": question, "model": model, "params": {"max_output_tokens": MAX_OUTPUT_TOKENS}}


def _compatible_body(question: str, model: str) -> dict[str, Any]:
    return {"model": model, "max_tokens": MAX_OUTPUT_TOKENS, "messages": [{"role": "user", "content": question}]}


def _with_usage(question: str, model: str) -> dict[str, Any]:
    return _compatible_body(question, model) | {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One way in: its body, and how its answer is read to the end."""

    name: str
    path: str
    body: Callable[[str, str], dict[str, Any]]
    read: Callable[[aiohttp.ClientResponse], Any]


NATIVE_PATH = "/api/v1/dialogs/{}/messages"
DOORS = (
    Door(name="dialog", path=NATIVE_PATH, body=_native_body, read=_native_whole),
    Door(
        name="dialog, streamed",
        path=NATIVE_PATH,
        body=lambda *asked: {**_native_body(*asked), "stream": True},
        read=_native_stream,
    ),
    Door(name="openai", path="/v1/chat/completions", body=_compatible_body, read=_openai_whole),
    Door(name="openai, streamed", path="/v1/chat/completions", body=_with_usage, read=_openai_stream),
    Door(name="anthropic", path="/v1/messages", body=_compatible_body, read=_anthropic_whole),
    Door(
        name="anthropic, streamed",
        path="/v1/messages",
        body=lambda *asked: {**_compatible_body(*asked), "stream": True},
        read=_anthropic_stream,
    ),
)
