"""The body of an estimate in its two forms, and the shape of what it answers."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from src.api.body import StrictBody
from src.api.routes.schemas import Content, ModelName, ParamsBody
from src.api.routes.tokens import quota_shape
from src.domain.completion.estimating import Estimate, ModelEstimate
from src.domain.completion.model import ChatMessage, ChatRole
from src.shared.errors import InvalidRequest, QuotaExceeded

MAX_MESSAGES = 100_000


class EstimateMessageBody(StrictBody):
    """One utterance."""

    role: Literal["system", "user", "assistant"]
    content: Content


class EstimateBody(StrictBody):
    """A call that might be made: either `messages`, or `content` as the next question of the dialog `dialog_id`."""

    messages: Annotated[list[EstimateMessageBody], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    dialog_id: str | None = None
    content: Content | None = None
    parent_id: str | None = None
    model: ModelName | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    params: ParamsBody | None = None
    stream: bool = False

    def check_form(self) -> None:
        """Raises InvalidRequest unless it is exactly one of the two forms, and names its maximum at most once."""
        if self.dialog_id is None:
            if self.messages is None:
                raise InvalidRequest("Send messages, or dialog_id and content.", param="messages")
            for name in ("content", "parent_id"):
                if getattr(self, name) is not None:
                    raise InvalidRequest(f"{name} is for a dialog: send dialog_id, or no {name}.", param=name)
        elif self.messages is not None:
            raise InvalidRequest("A dialog has its own messages: send messages, or dialog_id.", param="messages")
        elif self.content is None:
            raise InvalidRequest("The question is missing: the field content is required.", param="content")
        if self.max_output_tokens is not None and self.params and self.params.max_output_tokens is not None:
            raise InvalidRequest("max_output_tokens is in params already.", param="max_output_tokens")

    def given_params(self) -> dict[str, Any]:
        """The parameters that were named, for the domain."""
        named = self.params.given() if self.params else {}
        return named if self.max_output_tokens is None else {**named, "max_output_tokens": self.max_output_tokens}

    def chat_messages(self) -> tuple[ChatMessage, ...]:
        """The messages, for the domain."""
        return tuple(ChatMessage(role=ChatRole(each.role), text=each.content) for each in self.messages or ())


def estimate_shape(estimate: Estimate) -> dict[str, Any]:
    """An estimate as it is answered. Money is in micro-USD."""
    first = estimate.first
    return {
        "model": estimate.model,
        "models": [_model_shape(each) for each in estimate.models],
        "input_tokens": first.input_tokens,
        "input_tokens_bound": estimate.input_tokens_bound,
        "output_tokens_cap": first.output_tokens_cap,
        "hold": {unit.value: amount for unit, amount in estimate.needed.items()},
        "cost_micro_usd": {"least": first.least, "most": first.most, "worst": estimate.worst},
        "admitted": not estimate.refusals,
        "shrunk": estimate.is_shrunk,
        "refusals": [_refusal_shape(each) for each in estimate.refusals],
        "accounts": [{**quota_shape(each.standing), "would_hold": each.would_hold} for each in estimate.payers],
    }


def _model_shape(each: ModelEstimate) -> dict[str, Any]:
    return {
        "name": each.model.name,
        "provider": each.model.provider,
        "available": each.is_available,
        "left_out": each.is_left_out,
        "input_tokens": each.input_tokens,
        "output_tokens_cap": each.output_tokens_cap,
        "input_micro_usd_per_million": each.rates[0],
        "output_micro_usd_per_million": each.rates[1],
        "cost_micro_usd": {"least": each.least, "most": each.most},
    }


def _refusal_shape(refusal: QuotaExceeded) -> Mapping[str, Any]:
    """The details of the 402 that a call would get, and its message."""
    details = refusal.details
    remaining = max(0, details["limit"] - details["used"] - details["held"])
    return {**details, "remaining": remaining, "message": refusal.message}
