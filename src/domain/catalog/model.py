"""Providers, models, prices and chains, and the arithmetic of what a call costs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from src.shared.errors import InvalidRequest, NotFound
from src.shared.money import PER_MILLION, MicroDollars, Rate, rounded_up


class ProviderKind(StrEnum):
    """The wire format a provider speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    BUILTIN = "builtin"


class WireFormat(StrEnum):
    """The shape of requests and answers: what a client's door takes, and what an upstream's endpoint speaks."""

    CHAT_COMPLETIONS = "chat_completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    GENERATE_CONTENT = "generate_content"
    EMBEDDINGS = "embeddings"
    EMBED_CONTENT = "embed_content"
    BATCH_EMBED_CONTENTS = "batch_embed_contents"


class Lifecycle(StrEnum):
    """Whether the provider still sells the model. Retired models stay callable here: the provider has the last word."""

    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where a model lives. `api_key_env` names the setting that holds the key; the key itself is never stored here.

    `responses`: whether a server of kind openai has the Responses API too; None: only OpenAI itself.
    """

    name: str
    kind: ProviderKind
    base_url: str | None = None
    api_key_env: str | None = None
    enabled: bool = True
    responses: bool | None = None

    @property
    def formats(self) -> tuple[WireFormat, ...]:
        """The wire formats it takes requests in."""
        match self.kind:
            case ProviderKind.ANTHROPIC:
                return (WireFormat.MESSAGES,)
            case ProviderKind.GOOGLE:
                return (WireFormat.GENERATE_CONTENT, WireFormat.EMBED_CONTENT, WireFormat.BATCH_EMBED_CONTENTS)
            case ProviderKind.OPENAI if self.responses or (self.responses is None and self.name == "openai"):
                return (WireFormat.CHAT_COMPLETIONS, WireFormat.EMBEDDINGS, WireFormat.RESPONSES)
            case ProviderKind.OPENAI:
                return (WireFormat.CHAT_COMPLETIONS, WireFormat.EMBEDDINGS)
            case ProviderKind.BUILTIN:
                return (WireFormat.CHAT_COMPLETIONS,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call. `input_tokens` includes what was read from or written to a provider's prompt cache.

    `reasoning_tokens` are those of `output_tokens` that were thoughts, 0 where nobody says: told to the client, and
    neither priced nor stored.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: bool = False
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Other rates for calls whose input is above a number of tokens."""

    above_input_tokens: int
    input: Rate
    output: Rate
    cache_read: Rate | None = None
    cache_write: Rate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Rates in force from a moment on. A cache rate of None means that cached tokens cost the input rate."""

    input: Rate
    output: Rate
    cache_read: Rate | None = None
    cache_write: Rate | None = None
    tiers: tuple[Tier, ...] = ()
    effective_from: datetime | None = None

    def rates_for(self, input_tokens: int) -> "Price | Tier":
        """The highest tier that the size of the input reaches, or the base rates."""
        reached = [tier for tier in self.tiers if input_tokens > tier.above_input_tokens]
        return max(reached, key=lambda tier: tier.above_input_tokens) if reached else self

    def cost(self, usage: Usage) -> MicroDollars:
        """What the usage costs: tokens times rates, rounded once, up."""
        rates = self.rates_for(usage.input_tokens)
        cache_read = rates.input if rates.cache_read is None else rates.cache_read
        cache_write = rates.input if rates.cache_write is None else rates.cache_write
        fresh = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
        return rounded_up(
            fresh * rates.input
            + usage.cache_read_tokens * cache_read
            + usage.cache_write_tokens * cache_write
            + usage.output_tokens * rates.output
        )

    def worst_rates(self, input_tokens: int) -> tuple[int, int]:
        """(input, output) rates that no usage with at most that input can exceed, caches included."""
        steps: list[Price | Tier] = [self, *(tier for tier in self.tiers if input_tokens > tier.above_input_tokens)]
        return (
            max(max(step.input, step.cache_read or 0, step.cache_write or 0) for step in steps),
            max(step.output for step in steps),
        )


FREE = Price(input=Rate(0), output=Rate(0))


class ReasoningStyle(StrEnum):
    """How a model is told to think: not at all, by an effort, or by a budget of tokens."""

    NONE = "none"
    EFFORT = "effort"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a model can do, as data. `sampling`: it accepts temperature, top_p and top_k.

    `reasoning` None: as its name suggests. A model of `embeddings` makes vectors and answers nothing.
    """

    sampling: bool = True
    images: bool = True
    documents: bool = True
    audio: bool = False
    tools: bool = True
    structured_output: bool = True
    reasoning: ReasoningStyle | None = None
    embeddings: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A place where a model can be called: a provider (its address and key) and what the model is called there.

    Calls are shared out by `weight`; of weight 0 it is called only when all others fail.
    """

    provider: str
    upstream: str
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long one attempt may take, in seconds; None leaves it to the gateway's own limits.

    To connect, from the call to a stream's first event, between its events, and in all.
    """

    connect_s: float | None = None
    first_event_s: float | None = None
    between_events_s: float | None = None
    total_s: float | None = None


PATIENT = Deadlines()


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """Answers are kept for so many seconds, for whoever of the tenant (or only the same user) asks the same.

    With a `similarity` (a cosine, up to 1) also for who asks a question that means the same to that degree.
    """

    ttl_s: float
    per_user: bool = False
    similarity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A row of the catalog. `name` is what clients call it, `upstream` what its provider does.

    A model of embeddings takes its window for each of its inputs, and its `max_output` is 0.
    `output_reserve`: output tokens that a call without a maximum of its own holds (and is capped at), and the step in
    which long streams extend their hold; None: the model's maximum at once. `deployments` are other places where it can
    be called at the same price; `weight` is that of its own. `cache` None: answers are cached only where asked for.
    """

    name: str
    provider: str
    upstream: str
    context_window: int
    max_output: int
    output_reserve: int | None = None
    prices: tuple[Price, ...] = ()
    capabilities: Capabilities = field(default_factory=Capabilities)
    lifecycle: Lifecycle = Lifecycle.ACTIVE
    replacement: str | None = None
    enabled: bool = True
    weight: int = 1
    deployments: tuple[Deployment, ...] = ()
    deadlines: Deadlines = PATIENT
    cache: CachePolicy | None = None

    @property
    def everywhere(self) -> tuple[Deployment, ...]:
        """All places where it can be called, its own first."""
        return (Deployment(provider=self.provider, upstream=self.upstream, weight=self.weight), *self.deployments)

    def price_at(self, moment: datetime) -> Price:
        """The price in force: the latest that has begun. A model without prices is free."""
        begun = [price for price in self.prices if price.effective_from is None or price.effective_from <= moment]
        if not begun:
            return min(self.prices, key=_start, default=FREE)
        return max(begun, key=_start)


def _start(price: Price) -> float:
    return float("-inf") if price.effective_from is None else price.effective_from.timestamp()


class ChainStrategy(StrEnum):
    """Which model of a chain comes first; the others follow in the same order, should it fail."""

    ORDERED = "ordered"
    WEIGHTED = "weighted"
    FASTEST = "fastest"
    CHEAPEST = "cheapest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Models to try under one public name. `weights` (one a model) share out the calls of a weighted chain; a `sticky`
    one draws the same model for all turns of a conversation.
    """

    name: str
    models: tuple[str, ...]
    strategy: ChainStrategy = ChainStrategy.ORDERED
    weights: tuple[int, ...] = ()
    sticky: bool = True


MAX_CHAIN = 8
MAX_DEPLOYMENTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A public name resolved: the models to try, in a chain's order. Never empty. See Chain for the rest."""

    name: str
    models: tuple[Model, ...]
    strategy: ChainStrategy = ChainStrategy.ORDERED
    weights: tuple[int, ...] = ()
    sticky: bool = True


@dataclass(frozen=True, slots=True)
class Catalog:
    """One moment's view of everything that can be called; replaced as a whole, never edited."""

    providers: Mapping[str, Provider]
    models: Mapping[str, Model]
    chains: Mapping[str, Chain]
    default_model: str | None = None

    def route(self, name: str) -> Route:
        """The models behind a public name (a model or a chain).

        Raises NotFound (`model_not_found`) for what is unknown, disabled or of a disabled provider.
        """
        chain = self.chains.get(name) or Chain(name=name, models=(name,))
        weights = dict(zip(chain.models, chain.weights, strict=True)) if chain.weights else {}
        models = tuple(model for each in chain.models if (model := self.usable(each)) is not None)
        if not models:
            raise NotFound(
                f"The model {name[:200]!r} does not exist here or is switched off. GET /v1/models lists those that do.",
                param="model",
                code="model_not_found",
            )
        return Route(
            name=name,
            models=models,
            strategy=chain.strategy,
            weights=tuple(weights[model.name] for model in models if weights),
            sticky=chain.sticky,
        )

    def usable(self, name: str) -> Model | None:
        """The model, where it and a provider of it are known and enabled."""
        model = self.models.get(name)
        return model if model is not None and model.enabled and self.providers_of(model) else None

    def providers_of(self, model: Model) -> list[Provider]:
        """The enabled providers where it can be called."""
        found = (self.providers.get(place.provider) for place in model.everywhere)
        return [provider for provider in found if provider is not None and provider.enabled]

    def name_or_default(self, name: str | None) -> str:
        """Raises InvalidRequest when no model is named and there is no default."""
        chosen = name or self.default_model
        if chosen is None:
            raise InvalidRequest("Name a model: this gateway has no default one.", param="model")
        return chosen


def output_affordable(budget_micro_usd: int, input_tokens: int, rates: tuple[int, int]) -> int | None:
    """How many output tokens a budget pays for besides the input; None where output is free and the input is paid."""
    left = budget_micro_usd * PER_MILLION - input_tokens * rates[0]
    if rates[1] == 0:
        return None if left >= 0 else -1
    return left // rates[1] if left >= 0 else -1
