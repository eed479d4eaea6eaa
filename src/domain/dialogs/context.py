"""As much of a dialog as a model can be told, and in a shape that it takes."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace

from src.domain.catalog.model import Model
from src.domain.completion.content import Opaque, Part, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.model import ChatMessage, ChatRole, FinishReason, Parameters
from src.domain.completion.ports import TokenMeter
from src.domain.dialogs.model import Context, Message, MessageStatus, fitted
from src.domain.dialogs.storing import chat_message

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


def as_told(path: Sequence[Message], following: Sequence[ChatMessage] = ()) -> list[ChatMessage]:
    """Stored messages as a model is told them, before what follows; those that say nothing are left out.

    So is what may not be whole of an answer that was cut off (calls that nobody has answered, thoughts without an end),
    and results of calls that were taken out. Calls that something else was said after have a result in any case.
    """
    said = [chat_message(each) for each in path]
    answered = {part.call_id for each in (*said, *following) for part in each.parts if isinstance(part, ToolResult)}
    whole = [
        _what_is_whole(each, answered) if _was_cut_off(stored) else each
        for stored, each in zip(path, said, strict=True)
    ]
    told: list[ChatMessage] = []
    for place, message in enumerate(_with_calls(whole)):
        told += [message] if message.text or message.parts else []
        unanswered = [part for part in message.parts if isinstance(part, ToolCall) and part.id not in answered]
        if unanswered and place < len(path) - 1:
            told.append(_no_results(unanswered))
    return told


def _with_calls(messages: Sequence[ChatMessage]) -> Iterator[ChatMessage]:
    """The messages without results of calls that are not among them; what is opaque may be a call."""
    parts = [part for message in messages for part in message.parts]
    called = {part.id for part in parts if isinstance(part, ToolCall)}
    may_be = any(isinstance(part, Opaque) for part in parts)
    for message in messages:
        kept = tuple(part for part in message.parts if not isinstance(part, ToolResult) or part.call_id in called)
        yield message if may_be or len(kept) == len(message.parts) else replace(message, parts=kept)


def _was_cut_off(message: Message) -> bool:
    return message.status is not MessageStatus.COMPLETED or message.finish_reason == FinishReason.LENGTH


def _what_is_whole(message: ChatMessage, answered: Set[str]) -> ChatMessage:
    return replace(message, parts=tuple(part for part in message.parts if _is_whole(part, answered)))


def _is_whole(part: Part, answered: Set[str]) -> bool:
    match part:
        case ToolCall(id=call_id):
            return call_id in answered
        case Thinking(signature=signature):
            return signature is not None
        case _:
            return True


def with_results(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The same conversation, where every call of a tool has a result: providers refuse others."""
    whole: list[ChatMessage] = []
    for place, message in enumerate(messages):
        whole.append(message)
        following = messages[place + 1].parts if place + 1 < len(messages) else ()
        answered = {part.call_id for part in following if isinstance(part, ToolResult)}
        calls = [part for part in message.parts if isinstance(part, ToolCall) and part.id not in answered]
        if calls:
            whole.append(_no_results(calls))
    return whole


def _no_results(calls: Sequence[ToolCall]) -> ChatMessage:
    return ChatMessage(role=ChatRole.USER, parts=tuple(map(_no_result, calls)))


def _no_result(call: ToolCall) -> ToolResult:
    said = (Text(text=NOT_CALLED),)
    return ToolResult(call_id=call.id, name=call.name, content=said, is_error=True, is_custom=call.is_custom)


def _words(message: Message) -> str:
    """Everything there is to count in a message; files by their length, which is more than they cost.

    What only one format says of a part may be many times the part, and models read little of it.
    """
    if not message.parts:
        return message.content
    return str([{name: value for name, value in part.items() if name != "particulars"} for part in message.all_parts])


def _kept_for_answer(model: Model, parameters: Parameters) -> int:
    most = min(model.max_output, model.context_window // OUTPUT_SHARE)
    wish = parameters.max_output_tokens
    return most if wish is None else min(wish, model.max_output, model.context_window // 2)
