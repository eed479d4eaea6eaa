"""Password logins, API keys, and who am I."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from src.api.deps import GatewayDep, PageDep, PrincipalDep, RequestId, path_id, principal
from src.api.native import NativeRoute, answer, listed
from src.api.routes.identity_schemas import (
    ApiKeyBody,
    LoginBody,
    LogoutBody,
    RefreshBody,
    key_shape,
    principal_shape,
    tokens_shape,
)
from src.domain.identity import api_keys, sessions
from src.domain.identity.model import ApiKeyId, UserId

router = APIRouter(tags=["identity"], route_class=NativeRoute)

NO_STORE = {"cache-control": "no-store"}


@router.post("/auth/login")
async def login(body: LoginBody, gateway: GatewayDep, request_id: RequestId) -> Response:
    """An access and a refresh token for an e-mail address and a password."""
    tokens = await sessions.login(body.email, body.password, body.tenant, gateway.sessions, request_id)
    return answer(tokens_shape(tokens, gateway.clock()), headers=NO_STORE)


@router.post("/auth/refresh")
async def refresh(body: RefreshBody, gateway: GatewayDep) -> Response:
    """New tokens for a refresh token, which then is used up."""
    tokens = await sessions.refresh(body.refresh_token, gateway.sessions)
    return answer(tokens_shape(tokens, gateway.clock()), headers=NO_STORE)


@router.post("/auth/logout", status_code=204)
async def logout(
    request: Request, gateway: GatewayDep, request_id: RequestId, body: LogoutBody | None = None
) -> Response:
    """End the session of the access token, or of the refresh token in the body."""
    if body is not None and body.refresh_token is not None:
        ended = await sessions.end_session(body.refresh_token, gateway.sessions, request_id)
        gateway.authenticator.forget(session_id=ended)
        return Response(status_code=204)
    caller = await principal(request, gateway)
    await sessions.logout(caller, open_uow=gateway.open_uow, clock=gateway.clock, request_id=request_id)
    gateway.authenticator.forget(session_id=caller.session_id)
    return Response(status_code=204)


@router.get("/me")
async def me(principal: PrincipalDep) -> Response:
    """Who is calling."""
    return answer(principal_shape(principal))


@router.post("/api-keys", status_code=201)
async def create_key(body: ApiKeyBody, principal: PrincipalDep, gateway: GatewayDep, request_id: RequestId) -> Response:
    """A new key; its secret is in this answer and nowhere else."""
    key, secret = await api_keys.create_api_key(
        principal,
        body.name,
        open_uow=gateway.open_uow,
        clock=gateway.clock,
        hasher=gateway.hasher,
        user_id=UserId(body.user_id) if body.user_id else None,
        models=None if body.models is None else tuple(body.models),
        expires_at=body.expires_at,
        request_id=request_id,
    )
    return answer(key_shape(key, secret), 201, NO_STORE)


@router.get("/api-keys")
async def list_keys(principal: PrincipalDep, gateway: GatewayDep, page: PageDep) -> Response:
    """One's own keys, newest first."""
    return listed(await api_keys.list_own_keys(principal, page, open_uow=gateway.open_reading), key_shape)


@router.delete("/api-keys/{key_id}", status_code=204)
async def revoke_key(key_id: str, principal: PrincipalDep, gateway: GatewayDep, request_id: RequestId) -> Response:
    """End a key: at once here, within two seconds on other replicas."""
    found = ApiKeyId(path_id(key_id, "API key"))
    await api_keys.revoke_api_key(
        principal, found, open_uow=gateway.open_uow, clock=gateway.clock, request_id=request_id
    )
    gateway.authenticator.forget(api_key_id=found)
    return Response(status_code=204)


@router.post("/api-keys/{key_id}/rotate")
async def rotate_key(key_id: str, principal: PrincipalDep, gateway: GatewayDep, request_id: RequestId) -> Response:
    """A new secret for a key; the old one ends."""
    key, secret = await api_keys.rotate_api_key(
        principal,
        ApiKeyId(path_id(key_id, "API key")),
        open_uow=gateway.open_uow,
        clock=gateway.clock,
        hasher=gateway.hasher,
        request_id=request_id,
    )
    gateway.authenticator.forget(api_key_id=key.id)
    return answer(key_shape(key, secret), headers=NO_STORE)
