"""Which deployments of which models a call may be sent to, and in which order."""

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from src.domain.catalog.model import ChainStrategy, Deployment, Model, Provider, Route
from src.domain.completion.abilities import beyond
from src.domain.completion.model import ChatRequest
from src.domain.routing.board import Board

TYPICAL_INPUT, TYPICAL_OUTPUT = 3, 1
"""Shares of a typical call's tokens, for comparing prices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model at one of its deployments: `model` is the model as it is called there."""

    model: Model
    provider: Provider

    @property
    def key(self) -> str:
        """What its breaker goes by."""
        return deployment_key(self.model.provider, self.model.upstream)


def deployment_key(provider: str, upstream: str) -> str:
    """One name for what is called one thing at one provider, whatever it is called here."""
    return f"{provider}/{upstream}"


def candidates(
    route: Route, providers: Mapping[str, Provider], board: Board, *, stream: bool, sticky: str | None, now: datetime
) -> list[Candidate]:
    """All deployments behind a route, in the order in which they are to be tried.

    The route's strategy orders its models, weights order each model's deployments. With `sticky`, what is drawn by
    weight is drawn alike for the same word, whichever replica draws: providers find their prompt caches warm.
    """
    sticky = sticky if route.sticky else None
    ordered = _ordered(route, board, stream=stream, sticky=sticky, now=now)
    return [each for model in ordered for each in _deployments(model, providers, sticky)]


def can_do(candidate: Candidate, chat: ChatRequest) -> bool:
    """Whether what the request carries besides text can be said to that model, by what is known of both."""
    wire = chat.wire
    if wire is not None and wire.untranslatable and wire.format not in candidate.provider.formats:
        return False
    return not beyond(candidate.model.capabilities, chat)


def sticky_word(chat: ChatRequest, dialog_id: object | None) -> str:
    """What the calls of one conversation have in common: its dialog, else how it begins."""
    if dialog_id is not None:
        return str(dialog_id)
    return "\n".join(message.text[:2000] for message in chat.messages[:2])


def _ordered(route: Route, board: Board, *, stream: bool, sticky: str | None, now: datetime) -> Sequence[Model]:
    match route.strategy:
        case ChainStrategy.ORDERED:
            return route.models
        case ChainStrategy.WEIGHTED:
            names = [model.name for model in route.models]
            return [route.models[place] for place in _drawn(names, route.weights or (1,) * len(names), sticky)]
        case ChainStrategy.CHEAPEST:
            return sorted(route.models, key=lambda model: _typical_rate(model, now))
        case ChainStrategy.FASTEST:
            return sorted(route.models, key=lambda model: _latency_s(model, board, stream=stream))


def _latency_s(model: Model, board: Board, *, stream: bool) -> float:
    """That of its fastest deployment. What was not measured lately comes first: so it is measured."""
    keys = (deployment_key(each.provider, each.upstream) for each in model.everywhere)
    return min(board.latency_s(key, stream=stream) or 0.0 for key in keys)


def _typical_rate(model: Model, now: datetime) -> int:
    price = model.price_at(now)
    return TYPICAL_INPUT * price.input + TYPICAL_OUTPUT * price.output


def _deployments(model: Model, providers: Mapping[str, Provider], sticky: str | None) -> list[Candidate]:
    places = [each for each in model.everywhere if (found := providers.get(each.provider)) and found.enabled]
    if len(places) > 1:
        names = [deployment_key(each.provider, each.upstream) for each in places]
        places = [places[place] for place in _drawn(names, [each.weight for each in places], sticky)]
    return [_at(model, place, providers) for place in places]


def _at(model: Model, place: Deployment, providers: Mapping[str, Provider]) -> Candidate:
    if (place.provider, place.upstream) != (model.provider, model.upstream):
        model = replace(model, provider=place.provider, upstream=place.upstream)
    return Candidate(model=model, provider=providers[place.provider])


def _drawn(names: Sequence[str], weights: Sequence[int], sticky: str | None) -> list[int]:
    """The places of all names, drawn one after the other by weight; those of weight 0 come last, in their order.

    Each draws a number u, and the largest u ** (1 / weight) is first (Efraimidis and Spirakis). Where u comes from a
    hash of name and word, adding or losing a name moves no other conversation.
    """

    def rank(place: int) -> float:
        if not weights[place]:
            return -math.inf
        return math.log(_uniform(names[place], sticky)) / weights[place]

    return sorted(range(len(names)), key=rank, reverse=True)


def _uniform(name: str, sticky: str | None) -> float:
    """Above 0, at most 1."""
    if sticky is None:
        return 1.0 - random.random()
    digest = hashlib.blake2b(f"{name}\n{sticky}".encode("utf-8", "replace"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 1) / 2**64
