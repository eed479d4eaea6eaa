"""What choosing and watching a deployment costs a call: the chain's way beside the bare upstream, in one run.

    python benchmarks/chain.py [calls]

The upstream answers at once, with a whole text or a stream of a hundred pieces. CPU is this process's own.
"""

import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import uvloop

from src.domain.catalog.model import ChainStrategy, Deadlines, Deployment, Model, Provider, ProviderKind, Route
from src.domain.completion.deltas import TextDelta
from src.domain.completion.fallback import ChainCall, Routing, Trace
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    Finished,
    FinishReason,
    Reply,
    UpstreamEvent,
    UpstreamRequest,
)
from src.domain.routing.board import Board
from src.domain.routing.candidates import candidates, sticky_word
from src.domain.routing.retry import RetryBudget, RetryPolicy
from src.shared.clock import utc_now

PIECES = 100
DONE = Finished(reason=FinishReason.STOP)
PROVIDERS = {"p": Provider(name="p", kind=ProviderKind.OPENAI)}
QUESTION = (ChatMessage(role=ChatRole.USER, text="How are you?"),)
PLAIN = Model(name="m", provider="p", upstream="m", context_window=1000, max_output=100)
SPREAD = replace(PLAIN, deployments=tuple(Deployment(provider="p", upstream=f"m-{number}") for number in range(3)))
TIMED = replace(PLAIN, deadlines=Deadlines(first_event_s=10, between_events_s=10, total_s=60))


class Instant:
    """An upstream that has its answer ready."""

    def chat_model(self, model: Model, provider: Provider) -> "Instant":
        return self

    def is_ready(self, provider: Provider) -> bool:
        return True

    async def close(self) -> None: ...

    async def complete(self, request: UpstreamRequest) -> Reply:
        return Reply(text="Fine.", finished=DONE)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        for _ in range(PIECES):
            yield TextDelta("fine ")
        yield DONE


async def bare(chat: ChatRequest) -> None:
    request = UpstreamRequest(model=PLAIN, chat=chat)
    if not chat.stream:
        await Instant().complete(request)
        return
    async for _ in Instant().stream(request):
        pass


def chained(routing: Routing, *models: Model, strategy: ChainStrategy = ChainStrategy.ORDERED) -> "Ask":
    route = Route(name="m", models=models, strategy=strategy)

    async def ask(chat: ChatRequest) -> None:
        sticky = sticky_word(chat, None)
        found = candidates(route, PROVIDERS, routing.board, stream=chat.stream, sticky=sticky, now=utc_now())
        call = ChainCall(found, chat, None, Trace(), routing, total_s=60)
        async for _ in call.events():
            pass

    return ask


Ask = Callable[[ChatRequest], Awaitable[None]]


async def cpu_us(ask: Ask, chat: ChatRequest, calls: int) -> float:
    for _ in range(calls // 10):
        await ask(chat)
    began_s = time.process_time()
    for _ in range(calls):
        await ask(chat)
    return (time.process_time() - began_s) / calls * 1e6


async def main(calls: int) -> None:
    retry = RetryPolicy()
    routing = Routing(upstreams=Instant(), board=Board(), retry=retry, budget=RetryBudget(retry, time.monotonic()))
    ways: dict[str, Ask] = {
        "bare": bare,
        "one model": chained(routing, PLAIN),
        "one model, deadlines": chained(routing, TIMED),
        "four deployments": chained(routing, SPREAD),
        "fastest of three": chained(
            routing, *(replace(PLAIN, upstream=name) for name in "abc"), strategy=ChainStrategy.FASTEST
        ),
    }
    print(f"{'CPU us':24}{'whole':>10}{f'stream of {PIECES}':>16}{'a piece':>10}")
    for name, ask in ways.items():
        whole = await cpu_us(ask, ChatRequest(messages=QUESTION), calls)
        stream = await cpu_us(ask, ChatRequest(messages=QUESTION, stream=True), calls // 10)
        print(f"{name:24}{whole:10.1f}{stream:16.1f}{stream / PIECES:10.2f}")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
