"""Providers, models, prices and chains, and the arithmetic of what a call costs."""

from collections.abc import Mapping, Sequence
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


class Lifecycle(StrEnum):
    """Whether the provider still sells the model. Retired models stay callable here: the provider has the last word."""

    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where a model lives. `api_key_env` names the setting that holds the key; the key itself is never stored here."""

    name: str
    kind: ProviderKind
    base_url: str | None = None
    api_key_env: str | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call. `input_tokens` includes what was read from or written to a provider's prompt cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: bool = False

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a model can do, as data. `sampling`: it accepts temperature, top_p and top_k."""

    sampling: bool = True
    images: bool = True
    tools: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A row of the catalog. `name` is what clients call it, `upstream` what its provider does.

    `output_reserve`: output tokens that a call without a maximum of its own holds (and is capped at), and the step in
    which long streams extend their hold; None: the model's maximum at once.
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

    def price_at(self, moment: datetime) -> Price:
        """The price in force: the latest that has begun. A model without prices is free."""
        begun = [price for price in self.prices if price.effective_from is None or price.effective_from <= moment]
        if not begun:
            return min(self.prices, key=_start, default=FREE)
        return max(begun, key=_start)


def _start(price: Price) -> float:
    return float("-inf") if price.effective_from is None else price.effective_from.timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Models to try in order, under one public name."""

    name: str
    models: tuple[str, ...]


MAX_CHAIN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A public name resolved: the models to try, in order. Never empty."""

    name: str
    models: tuple[Model, ...]


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
        chain = self.chains.get(name)
        names: Sequence[str] = chain.models if chain is not None else (name,)
        models = tuple(model for each in names if (model := self.usable(each)) is not None)
        if not models:
            raise NotFound(
                f"The model {name[:200]!r} does not exist here or is switched off. GET /v1/models lists those that do.",
                param="model",
                code="model_not_found",
            )
        return Route(name=name, models=models)

    def usable(self, name: str) -> Model | None:
        """The model, where it and its provider are known and enabled."""
        model = self.models.get(name)
        if model is None or not model.enabled:
            return None
        provider = self.providers.get(model.provider)
        return model if provider is not None and provider.enabled else None

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
