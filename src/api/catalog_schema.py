"""Providers, models, prices and chains as operators write them: in GATEWAY_CONFIG and to the admin endpoints."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from src.api.body import Body
from src.api.moments import DayOrMoment
from src.domain.catalog.model import (
    MAX_CHAIN,
    MAX_DEPLOYMENTS,
    CachePolicy,
    Capabilities,
    Chain,
    ChainStrategy,
    Deadlines,
    Deployment,
    Lifecycle,
    Model,
    Price,
    Provider,
    ProviderKind,
    ReasoningStyle,
    Tier,
)
from src.domain.catalog.use_cases import CatalogFile
from src.shared.errors import Misconfigured
from src.shared.money import Rate, rate_from_usd
from src.shared.settings import PROVIDER_KEY_NAME

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
UsdPerMillion = Annotated[Decimal, Field(ge=0, le=1_000_000)]
Tokens = Annotated[int, Field(strict=True, ge=1, le=100_000_000)]
OutputTokens = Annotated[int, Field(strict=True, ge=0, le=100_000_000)]
Weight = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]

MAX_CACHE_TTL_S = 30 * 86_400


class Rates(Body):
    """USD per million tokens."""

    input: UsdPerMillion
    output: UsdPerMillion
    cache_read: UsdPerMillion | None = None
    cache_write: UsdPerMillion | None = None

    @field_validator("input", "output", "cache_read", "cache_write")
    @classmethod
    def _exact(cls, value: Decimal | None) -> Decimal | None:
        """Refuse what is finer than a micro-dollar."""
        if value is not None:
            rate_from_usd(value)
        return value

    def _optional(self, value: Decimal | None) -> Rate | None:
        return None if value is None else rate_from_usd(value)


class TierBody(Rates):
    """Other rates above a size of input."""

    above_input_tokens: Tokens

    def to_domain(self) -> Tier:
        """The tier in micro-dollars."""
        return Tier(
            above_input_tokens=self.above_input_tokens,
            input=rate_from_usd(self.input),
            output=rate_from_usd(self.output),
            cache_read=self._optional(self.cache_read),
            cache_write=self._optional(self.cache_write),
        )


class PriceBody(Rates):
    """Rates in force from a day (or moment) on; without `from`, always."""

    effective_from: DayOrMoment | None = Field(None, alias="from")
    tiers: list[TierBody] = Field(default_factory=list, max_length=10)

    def to_domain(self) -> Price:
        """The price in micro-dollars."""
        return Price(
            input=rate_from_usd(self.input),
            output=rate_from_usd(self.output),
            cache_read=self._optional(self.cache_read),
            cache_write=self._optional(self.cache_write),
            tiers=tuple(tier.to_domain() for tier in self.tiers),
            effective_from=self.effective_from,
        )


class CapabilitiesBody(Body):
    """What the model can do."""

    sampling: StrictBool = True
    images: StrictBool = True
    documents: StrictBool = True
    audio: StrictBool = False
    tools: StrictBool = True
    structured_output: StrictBool = True
    reasoning: ReasoningStyle | None = None
    embeddings: StrictBool = False


class DeploymentBody(Body):
    """Another place where a model can be called; without `upstream`, by the same name as at its own."""

    provider: Name
    upstream: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    weight: Weight = 1


class DeadlinesBody(Body):
    """Limits of one attempt, in seconds; None leaves them to the gateway's settings."""

    connect_s: Seconds | None = None
    first_event_s: Seconds | None = None
    between_events_s: Seconds | None = None
    total_s: Seconds | None = None


class CacheBody(Body):
    """For how long answers may be given again, whether to the same user only, and to how similar questions."""

    ttl_s: Annotated[float, Field(gt=0, le=MAX_CACHE_TTL_S)]
    per_user: StrictBool = False
    similarity: Annotated[float, Field(ge=0.5, le=1)] | None = None


class ModelBody(Body):
    """A model of a provider, under the name clients use."""

    name: Name
    provider: Name
    upstream: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    context_window: Tokens
    capabilities: CapabilitiesBody = CapabilitiesBody()
    max_output: OutputTokens
    output_reserve: Tokens | None = None
    price: list[PriceBody] = Field(default_factory=list, max_length=100)
    lifecycle: Lifecycle = Lifecycle.ACTIVE
    replacement: Name | None = None
    enabled: StrictBool = True
    weight: Weight = 1
    deployments: list[DeploymentBody] = Field(default_factory=list, max_length=MAX_DEPLOYMENTS)
    deadlines: DeadlinesBody = DeadlinesBody()
    cache: CacheBody | None = None

    @field_validator("max_output")
    @classmethod
    def _some_unless_vectors(cls, value: int, info: ValidationInfo) -> int:
        capabilities = info.data.get("capabilities")
        if value == 0 and not (capabilities and capabilities.embeddings):
            raise ValueError("must be at least 1, but for models of embeddings")
        return value

    @field_validator("output_reserve")
    @classmethod
    def _within_max_output(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value > info.data.get("max_output", value):
            raise ValueError("is more than max_output")
        return value

    @field_validator("price", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        """One price or a dated list of them."""
        return [value] if isinstance(value, dict) else value

    @field_validator("price")
    @classmethod
    def _one_price_at_a_time(cls, value: list[PriceBody]) -> list[PriceBody]:
        if len({price.effective_from for price in value}) != len(value):
            raise ValueError("two prices begin at the same time")
        return value

    def to_domain(self) -> Model:
        """The model as the catalog keeps it."""
        return Model(
            name=self.name,
            provider=self.provider,
            upstream=self.upstream or self.name,
            context_window=self.context_window,
            max_output=self.max_output,
            output_reserve=self.output_reserve,
            prices=tuple(price.to_domain() for price in self.price),
            capabilities=Capabilities(**self.capabilities.model_dump()),
            lifecycle=self.lifecycle,
            replacement=self.replacement,
            enabled=self.enabled,
            weight=self.weight,
            deployments=tuple(self._deployment(each) for each in self.deployments),
            deadlines=Deadlines(**self.deadlines.model_dump()),
            cache=None if self.cache is None else CachePolicy(**self.cache.model_dump()),
        )

    def _deployment(self, body: DeploymentBody) -> Deployment:
        upstream = body.upstream or self.upstream or self.name
        return Deployment(provider=body.provider, upstream=upstream, weight=body.weight)


class ProviderBody(Body):
    """A server that speaks one of the known wire formats."""

    name: Name
    kind: ProviderKind
    base_url: Annotated[str, Field(max_length=2000, pattern=r"^https?://[^\s]+$")] | None = None
    api_key_env: Annotated[str, Field(pattern=PROVIDER_KEY_NAME)] | None = None
    enabled: StrictBool = True
    responses: StrictBool | None = None

    @field_validator("base_url")
    @classmethod
    def _has_a_host(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if not parts.hostname or parts.port == 0:
                raise ValueError("names no host")
        return value

    def to_domain(self) -> Provider:
        """The provider as the catalog keeps it."""
        return Provider(**self.model_dump())


class ChainOptions(Body):
    """Models to try, and which comes first. `weights`: one for each model of a weighted chain."""

    models: list[Name] = Field(min_length=1, max_length=MAX_CHAIN)
    strategy: ChainStrategy = ChainStrategy.ORDERED
    weights: list[Weight] = Field(default_factory=list, max_length=MAX_CHAIN)
    sticky: StrictBool = True

    @model_validator(mode="after")
    def _weights_belong(self) -> Self:
        if self.weights and len(self.weights) != len(self.models):
            raise ValueError("weights must be as many as models")
        if self.weights and self.strategy is not ChainStrategy.WEIGHTED:
            raise ValueError("weights need the strategy weighted")
        return self

    def named(self, name: str) -> Chain:
        """The chain as the catalog keeps it, under that name."""
        return Chain(
            name=name,
            models=tuple(self.models),
            strategy=self.strategy,
            weights=tuple(self.weights),
            sticky=self.sticky,
        )


class ChainBody(ChainOptions):
    """A chain with its name."""

    name: Name

    def to_domain(self) -> Chain:
        """The chain as the catalog keeps it."""
        return self.named(self.name)


def _as_options(value: Any) -> Any:
    """A bare list of models is an ordered chain."""
    return {"models": value} if isinstance(value, list) else value


class ConfigFile(Body):
    """GATEWAY_CONFIG, and the data file of models."""

    dated: date | None = None
    providers: list[ProviderBody] = Field(default_factory=list)
    models: list[ModelBody] = Field(default_factory=list)
    chains: dict[Name, Annotated[ChainOptions, BeforeValidator(_as_options)]] = Field(default_factory=dict)


def read_catalog_file(path: Path) -> CatalogFile:
    """The file's content. Raises Misconfigured with a sentence that names the file and the field."""
    try:
        content = ConfigFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        return CatalogFile(
            providers=tuple(each.to_domain() for each in content.providers),
            models=tuple(each.to_domain() for each in content.models),
            chains=tuple(options.named(name) for name, options in content.chains.items()),
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Misconfigured(f"GATEWAY_CONFIG: {path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Misconfigured(f"GATEWAY_CONFIG: {path}: {where}: {first['msg']}.") from None
