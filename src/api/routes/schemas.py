"""Bodies of the native endpoints about dialogs, and the shapes of what they answer."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import AliasChoices, Field, StringConstraints, field_validator

from src.api.body import StrictBody
from src.domain.catalog.model import Usage
from src.domain.dialogs.model import Dialog, Exchange, Message

MAX_JSON_BYTES = 64 * 1024
MAX_CONTENT = 4_000_000

Title = Annotated[str, Field(max_length=500)]
ModelName = Annotated[str, Field(min_length=1, max_length=200)]
Content = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CONTENT, pattern=r"\S")]


class ParamsBody(StrictBody):
    """How to answer."""

    max_output_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        None, validation_alias=AliasChoices("max_output_tokens", "max_tokens", "max_completion_tokens")
    )
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    stop: list[Annotated[str, Field(min_length=1, max_length=500)]] | None = Field(None, max_length=16)
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def given(self) -> dict[str, Any]:
        """The parameters that were named, for the domain."""
        return self.model_dump(exclude_none=True)


class DialogBody(StrictBody):
    """A dialog, or what changes about one."""

    title: Title | None = None
    model: ModelName | None = None
    agent: ModelName | None = None
    system_prompt: Annotated[str, Field(max_length=MAX_CONTENT)] | None = None
    params: ParamsBody | None = None
    metadata: dict[str, Any] | None = None

    @field_validator("metadata")
    @classmethod
    def _small(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and len(orjson.dumps(value)) > MAX_JSON_BYTES:
            raise ValueError(f"metadata is larger than {MAX_JSON_BYTES} bytes")
        return value

    def fields(self) -> dict[str, Any]:
        """What was named, for the domain; null clears a field."""
        named = self.changes()
        if "params" in named:
            named["params"] = self.params.given() if self.params else {}
        if "metadata" in named:
            named["metadata"] = self.metadata or {}
        return named


class MessageBody(StrictBody):
    """A question."""

    content: Content
    stream: bool = False
    model: ModelName | None = None
    parent_id: str | None = None
    params: ParamsBody | None = None


class ChatBody(StrictBody):
    """A one-shot question."""

    content: Content
    user_id: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)] | None = None
    model: ModelName | None = None


def dialog_shape(dialog: Dialog) -> dict[str, Any]:
    """A dialog as it is answered."""
    params = {"stop": list(dialog.params["stop"])} if dialog.params.get("stop") else {}
    return {
        "id": dialog.id,
        "title": dialog.title,
        "model": dialog.model,
        "agent": dialog.agent,
        "system_prompt": dialog.system_prompt,
        "params": {**dialog.params, **params},
        "metadata": dialog.metadata,
        "created_at": dialog.created_at,
        "updated_at": dialog.updated_at,
    }


def usage_shape(usage: Usage) -> dict[str, Any]:
    """Usage as it is answered."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cache_read_tokens,
        "estimated": usage.estimated,
    }


def message_shape(message: Message) -> dict[str, Any]:
    """A message as it is answered."""
    return {
        "id": message.id,
        "dialog_id": message.dialog_id,
        "parent_id": message.parent_id,
        "role": message.role.value,
        "content": message.content,
        "parts": list(message.all_parts),
        "status": message.status.value,
        "finish_reason": message.finish_reason,
        "model": message.model,
        "usage": usage_shape(message.usage) if message.usage else None,
        "cost_micro_usd": message.cost_micro_usd,
        "cached": message.cached,
        "dropped_params": list(message.dropped),
        "error": message.error,
        "created_at": message.created_at,
        "completed_at": message.completed_at,
    }


def exchange_shape(exchange: Exchange) -> Mapping[str, Any]:
    """A one-shot question with its answer, as GET /history gives it."""
    return {
        "id": exchange.answer.id,
        "user_id": exchange.user_external_id,
        "content": exchange.question.content,
        "response": exchange.answer.content,
        "model": exchange.answer.model,
        "usage": usage_shape(exchange.answer.usage or Usage()),
        "cached": exchange.answer.cached,
        "timestamp": exchange.question.created_at,
    }
