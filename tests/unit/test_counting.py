"""Prompts are counted by the provider that would read them, and else by us; nobody pays, and everybody is limited."""

from typing import Any

import pytest

from src.domain.catalog.model import Chain, Model, Provider, ProviderKind, WireFormat
from src.domain.completion.counting import PromptCount, count_prompt
from src.domain.completion.model import ChatRequest, Failure, ToldCount, UpstreamFailed, UpstreamRequest, WireBody
from src.domain.limits.limiter import Limiter
from src.domain.limits.model import LimitName, LimitReached, LimitScope
from src.integrations.buckets.memory import MemoryBuckets
from src.shared.errors import NotAllowed, NotFound
from tests.makers import make_key, make_rate_limit
from tests.unit.support import (
    FakeLedger,
    FakeRateLimitsView,
    FakeUpstreams,
    completion_ports,
    make_catalog,
    make_model,
    make_principal,
    user_says,
)

CLAUDE = make_model(name="claude", provider="anthropic", upstream="claude-x")
FAST = make_model()
WORDS = 3


class Upstreams(FakeUpstreams):
    """Providers of whom some are there, and who count what they are told to."""

    def __init__(self, told: int | None = None, missing: str = "") -> None:
        super().__init__()
        self.told = told
        self.missing = missing
        self.asked: list[tuple[str, str]] = []

    def is_ready(self, provider: Provider) -> bool:
        return provider.name != self.missing

    async def count_prompt(self, request: UpstreamRequest, provider: Provider) -> ToldCount:
        self.asked.append((provider.name, request.model.upstream))
        if self.told is None:
            raise UpstreamFailed(Failure.TIMEOUT, "The provider did not answer in time.")
        return ToldCount(input_tokens=self.told, body={"input_tokens": self.told, "more": 1})


class Scene:
    def __init__(self, upstreams: Upstreams, *models: Model, limiter: Limiter | None = None, **catalog: Any) -> None:
        kinds = {"openai": ProviderKind.OPENAI, "anthropic": ProviderKind.ANTHROPIC}
        providers = {name: Provider(name=name, kind=kind) for name, kind in kinds.items()}
        made = make_catalog(*(models or (CLAUDE, FAST)), providers=providers, **catalog)
        self.upstreams = upstreams
        self.ledger = FakeLedger()
        self.ports = completion_ports(self.ledger, upstreams, made, limiter=limiter)
        self.principal = make_principal()

    async def count(self, name: str, wire_format: WireFormat = WireFormat.MESSAGES) -> PromptCount:
        wire = WireBody(format=wire_format, body={"messages": []})
        chat: ChatRequest = user_says("how are you", wire=wire)
        return await count_prompt(self.principal, name, chat, self.ports)


async def test_a_provider_of_the_clients_format_counts() -> None:
    scene = Scene(Upstreams(told=42))
    counted = await scene.count("claude")
    assert (counted.model, counted.input_tokens, counted.told) == ("claude", 42, {"input_tokens": 42, "more": 1})
    assert scene.upstreams.asked == [("anthropic", "claude-x")]
    assert scene.ledger.records == []


@pytest.mark.parametrize(
    ("upstreams", "name", "wire_format", "asked"),
    [
        (Upstreams(told=42), "fast", WireFormat.MESSAGES, 0),
        (Upstreams(told=42), "claude", WireFormat.GENERATE_CONTENT, 0),
        (Upstreams(told=None), "claude", WireFormat.MESSAGES, 1),
    ],
    ids=["another format's model", "another format's client", "a provider that fails"],
)
async def test_otherwise_we_estimate(upstreams: Upstreams, name: str, wire_format: WireFormat, asked: int) -> None:
    counted = await Scene(upstreams).count(name, wire_format)
    assert (counted.input_tokens, counted.told) == (WORDS, None)
    assert len(upstreams.asked) == asked


async def test_of_a_chain_the_first_that_can_be_called_counts() -> None:
    chains = {"smart": Chain(name="smart", models=("claude", "fast"))}
    assert (await Scene(Upstreams(told=42), chains=chains).count("smart")).model == "claude"
    assert (await Scene(Upstreams(told=42, missing="anthropic"), chains=chains).count("smart")).model == "fast"


async def test_who_may_not_call_a_model_may_not_count_for_it() -> None:
    scene = Scene(Upstreams())
    with pytest.raises(NotFound):
        await scene.count("gpt-99")
    scene.principal = make_principal(api_key=make_key(scene.principal.user, models=("fast",)))
    with pytest.raises(NotAllowed):
        await scene.count("claude")
    assert scene.upstreams.asked == []


async def test_a_count_is_a_request_of_no_tokens() -> None:
    view = FakeRateLimitsView(
        make_rate_limit(
            scope=LimitScope.MODEL, scope_id="claude", requests_per_minute=2, tokens_per_minute=2, parallel=1
        )
    )
    scene = Scene(Upstreams(told=42), limiter=Limiter(view, MemoryBuckets()))
    await scene.count("claude")
    counted = await scene.count("claude")
    used = {level.bucket.name: level.used for level in counted.levels}
    assert used == {LimitName.REQUESTS: 2, LimitName.TOKENS: 0, LimitName.PARALLEL: 1}
    with pytest.raises(LimitReached):
        await scene.count("claude")
