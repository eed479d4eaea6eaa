"""As much of a dialog as a model can be told, and in a shape that it takes."""

from collections.abc import Sequence

from src.domain.catalog.model import Model
from src.domain.completion.content import Text, ToolCall, ToolResult
from src.domain.completion.model import ChatMessage, ChatRole, Parameters
from src.domain.completion.ports import TokenMeter
from src.domain.dialogs.model import Context, Message, fitted

OUTPUT_SHARE = 4
"""Without a wish of the caller, a quarter of the window (at most the model's maximum) is kept free for the answer."""

MESSAGE_OVERHEAD_TOKENS = 8

NOT_CALLED = "The tool was not called."


def fitting(
    path: Sequence[Message], model: Model, parameters: Parameters, spent_tokens: int, meter: TokenMeter
) -> Context:
    """The newest turns that fit the model's window beside the answer and what is spent already; perhaps none."""
    budget = model.context_window - _kept_for_answer(model, parameters) - spent_tokens
    return fitted(path, {each.id: tokens_of(_words(each), model, meter) for each in path}, budget)


def tokens_of(text: str, model: Model, meter: TokenMeter) -> int:
    """What a message of this text costs of a window."""
    return meter.count(text, model) + MESSAGE_OVERHEAD_TOKENS


def with_results(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The same conversation, where every call of a tool has a result: providers refuse others."""
    whole: list[ChatMessage] = []
    for place, message in enumerate(messages):
        whole.append(message)
        following = messages[place + 1].parts if place + 1 < len(messages) else ()
        answered = {part.call_id for part in following if isinstance(part, ToolResult)}
        calls = [part for part in message.parts if isinstance(part, ToolCall) and part.id not in answered]
        if calls:
            whole.append(ChatMessage(role=ChatRole.USER, parts=tuple(map(_no_result, calls))))
    return whole


def _no_result(call: ToolCall) -> ToolResult:
    said = (Text(text=NOT_CALLED),)
    return ToolResult(call_id=call.id, name=call.name, content=said, is_error=True, is_custom=call.is_custom)


def _words(message: Message) -> str:
    """Everything there is to count in a message; files by their length, which is more than they cost."""
    return str(message.parts) if message.parts else message.content


def _kept_for_answer(model: Model, parameters: Parameters) -> int:
    most = min(model.max_output, model.context_window // OUTPUT_SHARE)
    wish = parameters.max_output_tokens
    return most if wish is None else min(wish, model.max_output, model.context_window // 2)
