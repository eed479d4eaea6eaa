"""What can be called, natively and in the dialects' own shapes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.api.container import Gateway
from src.api.deps import GatewayDep, PrincipalDep
from src.api.dialects.anthropic.models import AnthropicPageDep
from src.api.dialects.gemini.models import RESOURCES, GooglePageDep, gemini_model
from src.api.errors import Dialect, dialect_of
from src.api.native import answer, everything
from src.domain.catalog.model import Model, Price, Tier
from src.domain.completion.use_cases import resolve
from src.domain.identity.model import Principal
from src.shared.money import PER_MILLION

native = APIRouter(prefix="/models", tags=["models"])
compatible = APIRouter(prefix="/v1/models", tags=["compatible"])
gemini = APIRouter(prefix="/v1beta/models", tags=["compatible"])

_EPOCH = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())


@native.get("")
async def list_models(principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Every model and chain the caller may name, with its price now."""
    return everything([_native(name, gateway) for name in _names(principal, gateway, ready_only=False)])


@native.get("/{name:path}")
async def get_model(name: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """One model or chain."""
    resolve(gateway.catalog.current(), principal, name)
    return answer(_native(name, gateway))


@compatible.get("")
async def list_compatible(
    request: Request,
    principal: PrincipalDep,
    gateway: GatewayDep,
    google_page: GooglePageDep,
    anthropic_page: AnthropicPageDep,
) -> Response:
    """The models that can be called now, in the caller's dialect (told by its headers); OpenAI's has no pages."""
    names = list(_names(principal, gateway, ready_only=True))
    match _dialect(request):
        case Dialect.ANTHROPIC:
            return answer(anthropic_page.of(names, lambda name: _anthropic(name, gateway)))
        case Dialect.GEMINI:
            return answer(google_page.of(names, gateway.catalog.current()))
        case _:
            return answer({"object": "list", "data": [_openai(name, gateway) for name in names]})


@compatible.get("/{name:path}")
async def get_compatible(name: str, request: Request, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """One model in the caller's dialect."""
    dialect = _dialect(request)
    name = name.removeprefix(RESOURCES) if dialect is Dialect.GEMINI else name
    resolve(gateway.catalog.current(), principal, name)
    return answer(_SHAPES[dialect](name, gateway))


@gemini.get("")
async def list_gemini(principal: PrincipalDep, gateway: GatewayDep, page: GooglePageDep) -> Response:
    """The models that can be called now, as Google lists them."""
    return answer(page.of(list(_names(principal, gateway, ready_only=True)), gateway.catalog.current()))


@gemini.get("/{name:path}")
async def get_gemini(name: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """One model, as Google shows it."""
    name = name.removeprefix(RESOURCES)
    resolve(gateway.catalog.current(), principal, name)
    return answer(gemini_model(name, gateway.catalog.current()))


def _dialect(request: Request) -> Dialect:
    return dialect_of(request.scope["path"], request.headers, request.query_params)


def _names(principal: Principal, gateway: Gateway, *, ready_only: bool) -> Iterator[str]:
    catalog = gateway.catalog.current()
    for name in sorted({*catalog.models, *catalog.chains}):
        models = [catalog.usable(each) for each in (catalog.chains[name].models if name in catalog.chains else (name,))]
        usable = [model for model in models if model is not None]
        if not usable or not principal.may_use_model(name):
            continue
        if not ready_only or any(is_available(model, gateway) for model in usable):
            yield name


def is_available(model: Model, gateway: Gateway) -> bool:
    """Whether a provider of it has what it needs to be called."""
    return any(map(gateway.upstreams.is_ready, gateway.catalog.current().providers_of(model)))


def _native(name: str, gateway: Gateway) -> dict[str, Any]:
    catalog = gateway.catalog.current()
    chain = catalog.chains.get(name)
    if chain is not None:
        return {"id": name, "name": name, "object": "chain", "models": list(chain.models)}
    model = catalog.models[name]
    return {
        "id": name,
        "name": name,
        "object": "model",
        "provider": model.provider,
        "upstream": model.upstream,
        "context_window": model.context_window,
        "max_output": model.max_output,
        "output_reserve": model.output_reserve,
        "price": _price(model.price_at(gateway.clock())),
        "capabilities": asdict(model.capabilities),
        "lifecycle": model.lifecycle.value,
        "replacement": model.replacement,
        "enabled": model.enabled,
        "available": is_available(model, gateway),
    }


def model_shape(model: Model, gateway: Gateway) -> dict[str, Any]:
    """A model with all its prices, for administrators."""
    prices = [{**_price(price), "from": price.effective_from} for price in model.prices]
    return {
        **_native(model.name, gateway),
        "prices": prices,
        "weight": model.weight,
        "deployments": [asdict(each) for each in model.deployments],
        "deadlines": asdict(model.deadlines),
        "cache": model.cache and asdict(model.cache),
    }


def _price(price: Price) -> dict[str, Any]:
    """USD per million tokens, as operators write them, and the integers that are charged."""
    return {
        **_usd(price),
        "input_micro_usd_per_million": price.input,
        "output_micro_usd_per_million": price.output,
        "tiers": [{"above_input_tokens": tier.above_input_tokens, **_usd(tier)} for tier in price.tiers],
    }


def _usd(rates: Price | Tier) -> dict[str, float | None]:
    named = {name: getattr(rates, name) for name in ("input", "output", "cache_read", "cache_write")}
    return {name: None if rate is None else rate / PER_MILLION for name, rate in named.items()}


def _openai(name: str, gateway: Gateway) -> dict[str, Any]:
    model = gateway.catalog.current().models.get(name)
    owner = model.provider if model else "llm-gateway"
    return {"id": name, "object": "model", "created": _EPOCH, "owned_by": owner}


def _anthropic(name: str, gateway: Gateway) -> dict[str, Any]:
    """A chain can take what the smallest of its models can."""
    catalog = gateway.catalog.current()
    model, models = catalog.models.get(name), catalog.route(name).models
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": datetime.fromtimestamp(_EPOCH, UTC),
        "lifecycle": model.lifecycle.value if model else "active",
        "max_input_tokens": min(each.context_window for each in models),
        "max_tokens": min(each.max_output for each in models),
    }


_SHAPES: Mapping[Dialect, Callable[[str, Gateway], dict[str, Any]]] = {
    Dialect.OPENAI: _openai,
    Dialect.ANTHROPIC: _anthropic,
    Dialect.GEMINI: lambda name, gateway: gemini_model(name, gateway.catalog.current()),
}
