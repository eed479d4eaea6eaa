"""Providers, models, prices and chains, for platform administrators. What they write wins over files."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from src.api.catalog_schema import ChainBody, ModelBody, PriceBody, ProviderBody
from src.api.container import Gateway
from src.api.deps import GatewayDep, PlatformAdminDep, RequestId
from src.api.native import NativeRoute, answer, everything
from src.api.routes.models import model_shape
from src.domain.catalog import use_cases
from src.domain.catalog.model import Chain, Provider
from src.domain.routing.candidates import deployment_key
from src.shared.errors import NotFound

router = APIRouter(prefix="/admin", tags=["catalog administration"], route_class=NativeRoute)


@router.get("/providers")
async def list_providers(principal: PlatformAdminDep, gateway: GatewayDep) -> Response:
    """All providers, whether they have what they need, and how their deployments do, as this process sees it."""
    providers = gateway.catalog.current().providers
    return everything([_provider(providers[name], gateway) for name in sorted(providers)])


@router.post("/providers", status_code=201)
async def put_provider(
    body: ProviderBody, principal: PlatformAdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Add or replace a provider."""
    provider = await use_cases.put_provider(principal, body.to_domain(), gateway.catalog_admin, request_id)
    return answer(_provider(provider, gateway), 201)


@router.get("/models")
async def list_models(principal: PlatformAdminDep, gateway: GatewayDep) -> Response:
    """All models with all their prices, disabled ones too."""
    models = gateway.catalog.current().models
    return everything([model_shape(models[name], gateway) for name in sorted(models)])


@router.post("/models", status_code=201)
async def put_model(
    body: ModelBody, principal: PlatformAdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Add or replace a model with its prices."""
    model = await use_cases.put_model(principal, body.to_domain(), gateway.catalog_admin, request_id)
    return answer(model_shape(model, gateway), 201)


@router.get("/models/{name:path}/prices")
async def list_prices(name: str, principal: PlatformAdminDep, gateway: GatewayDep) -> Response:
    """All prices of a model, past and to come."""
    model = gateway.catalog.current().models.get(name)
    if model is None:
        raise NotFound("There is no such model.", code="model_not_found")
    return everything(model_shape(model, gateway)["prices"])


@router.post("/models/{name:path}/prices", status_code=201)
async def add_price(
    name: str, body: PriceBody, principal: PlatformAdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Add a price in force from a moment on."""
    model = await use_cases.add_price(principal, name, body.to_domain(), gateway.catalog_admin, request_id)
    return answer(model_shape(model, gateway), 201)


@router.get("/chains")
async def list_chains(principal: PlatformAdminDep, gateway: GatewayDep) -> Response:
    """All chains."""
    chains = gateway.catalog.current().chains
    return everything([_chain(chains[name]) for name in sorted(chains)])


@router.post("/chains", status_code=201)
async def put_chain(
    body: ChainBody, principal: PlatformAdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Add or replace a chain."""
    chain = await use_cases.put_chain(principal, body.to_domain(), gateway.catalog_admin, request_id)
    return answer(_chain(chain), 201)


@router.delete("/chains/{name:path}", status_code=204)
async def delete_chain(name: str, principal: PlatformAdminDep, gateway: GatewayDep, request_id: RequestId) -> Response:
    """Remove a chain."""
    await use_cases.delete_chain(principal, name, gateway.catalog_admin, request_id)
    return Response(status_code=204)


def _provider(provider: Provider, gateway: Gateway) -> dict[str, Any]:
    models = gateway.catalog.current().models.values()
    upstreams = {place.upstream for model in models for place in model.everywhere if place.provider == provider.name}
    return {
        "id": provider.name,
        "name": provider.name,
        "kind": provider.kind.value,
        "base_url": provider.base_url,
        "api_key_env": provider.api_key_env,
        "enabled": provider.enabled,
        "ready": gateway.upstreams.is_ready(provider),
        "deployments": [_deployment(provider, upstream, gateway) for upstream in sorted(upstreams)],
    }


def _deployment(provider: Provider, upstream: str, gateway: Gateway) -> dict[str, Any]:
    health = gateway.completions.answers.routing.board.health(deployment_key(provider.name, upstream))
    return {
        "upstream": upstream,
        "breaker": health.state.value,
        "reason": health.reason,
        "retry_in_s": health.retry_in_s,
        "latency_ms": health.latency_ms,
    }


def _chain(chain: Chain) -> dict[str, Any]:
    return {
        "id": chain.name,
        "name": chain.name,
        "models": list(chain.models),
        "strategy": chain.strategy.value,
        "weights": list(chain.weights),
        "sticky": chain.sticky,
    }
