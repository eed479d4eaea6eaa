"""Whether the process lives, may be sent requests, and what its parts say."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.api.container import Gateway
from src.api.deps import GatewayDep, PrincipalDep
from src.api.native import answer
from src.shared.clock import utc_now

router = APIRouter(tags=["health"])

CHECK_TIMEOUT_S = 3.0
"""A database that says nothing for so long is away; probes have no more patience."""


@router.head("/", include_in_schema=False)
@router.get("/")
async def root(gateway: GatewayDep) -> Response:
    """Who answers here."""
    return answer({"name": "LLM Gateway", "version": gateway.version, "status": "running", "docs": "/docs"})


@router.get("/health/live")
async def live() -> Response:
    """200 while the process lives."""
    return answer({"status": "alive"})


@router.get("/health/ready")
async def ready(gateway: GatewayDep) -> Response:
    """503 until the database is reachable and migrated, and while draining."""
    if gateway.completions.keeper.is_draining:
        return answer({"status": "draining"}, 503)
    database = await _works(gateway.check_database())
    if not database or not await gateway.is_migrated():
        return answer({"status": "not ready", "database": database}, 503)
    return answer({"status": "ready"})


@router.get("/metrics", include_in_schema=False)
async def metrics(gateway: GatewayDep) -> Response:
    """Counts and times of this process, for Prometheus."""
    text, content_type = gateway.metrics.exposition()
    return Response(text, media_type=content_type)


@router.get("/health")
async def health(gateway: GatewayDep) -> Response:
    """The parts in one word each; 503 where the database is away."""
    report = await _report(gateway)
    return answer(report, 200 if report["status"] == "healthy" else 503)


@router.get("/health/detailed")
async def detailed(request: Request, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Providers, models and running answers too; needs a credential."""
    report = await _report(gateway)
    catalog = gateway.catalog.current()
    details: dict[str, Any] = {
        "version": gateway.version,
        "providers": {
            name: "ready" if provider.enabled and gateway.upstreams.is_ready(provider) else "not configured"
            for name, provider in catalog.providers.items()
        },
        "models": len(catalog.models),
        "chains": len(catalog.chains),
        "answers_in_progress": len(gateway.completions.keeper.running),
    }
    return answer({**report, **details}, 200 if report["status"] == "healthy" else 503)


async def _report(gateway: Gateway) -> dict[str, Any]:
    storage = await _works(gateway.check_database())
    services = {"storage": storage, "cache": gateway.cache_state(), "llm": _has_provider(gateway)}
    return {"status": "healthy" if storage else "unhealthy", "timestamp": utc_now(), "services": services}


def _has_provider(gateway: Gateway) -> bool:
    providers = gateway.catalog.current().providers.values()
    return any(provider.enabled and gateway.upstreams.is_ready(provider) for provider in providers)


async def _works(check: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check
    except Exception:  # noqa: BLE001 - whatever it is, the answer is no
        return False
    return True
