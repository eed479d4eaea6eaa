"""How providers' refusals are understood."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from src.domain.completion.model import Failure, UpstreamFailed
from src.integrations.llm.failures import MAX_RETRY_AFTER_S, Refusal, refused, retry_after_s, told
from src.integrations.llm.relay_failures import message_in, of_answer

TOO_LONG = (
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Unable to submit request because the input token count is 1055488 but the model supports up to 1048576.",
    "the request exceeds the available context size, try increasing it",
    "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
    "Prompt contains 65673 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "Please reduce the length of the messages or completion.",
    "Input is too long for requested model.",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens",
    "Range of input length should be [1, 30720]",
    "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    "Requested token count exceeds the model's maximum context length of 32768 tokens.",
    "input length exceeds the context length",
    "However, the model is loaded with context length of only 4096 tokens, which is not enough.",
    "prompt token count of 123000 exceeds the limit of 64000",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 6000.",
    "Your request exceeded model token limit: 262144",
)
OTHER_MISTAKES = (
    "temperature and top_p cannot both be set",
    "Unknown parameter: 'context_length'.",
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
    "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for this model",
    "Invalid 'messages[0].content': string too long. Expected a string with maximum length 10485760.",
    "messages: text content blocks must be non-empty",
    "",
)


@pytest.mark.parametrize("status", [400, 413, 422, 200, None])
@pytest.mark.parametrize("message", TOO_LONG)
def test_a_prompt_beyond_the_context_window_is_known_by_its_words(status: int | None, message: str) -> None:
    failure = refused(Refusal(status=status, message=message))
    assert (failure.kind, failure.message) == (Failure.CONTEXT_WINDOW, message)


@pytest.mark.parametrize("name", ["context_length_exceeded", "exceed_context_size_error"])
def test_a_prompt_beyond_the_context_window_is_known_by_its_name(name: str) -> None:
    assert refused(Refusal(status=400, message="No.", names=("other", name))).kind is Failure.CONTEXT_WINDOW


@pytest.mark.parametrize("message", OTHER_MISTAKES)
def test_other_mistakes_are_no_matter_of_the_context_window(message: str) -> None:
    assert refused(Refusal(status=400, message=message)).kind is Failure.CALLER


@pytest.mark.parametrize("status", [429, 500, 503])
def test_words_about_the_context_excuse_no_failing_provider(status: int) -> None:
    assert refused(Refusal(status=status, message=TOO_LONG[0])).kind is not Failure.CONTEXT_WINDOW


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "1e300"}, MAX_RETRY_AFTER_S),
        ({"retry-after-ms": "99999999999"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, None),
    ],
)
def test_a_provider_may_ask_for_an_hour_at_most(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_a_date_is_counted_from_now() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < (retry_after_s({"retry-after": at}) or 0) <= 60


@given(some.text())
def test_whatever_a_header_says_waiting_is_bounded(value: str) -> None:
    assert 0 <= (retry_after_s({"retry-after": value}) or 0) <= MAX_RETRY_AFTER_S


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), ("ü😀", "ü😀"), ("a\x00b", "a\ufffdb"), ("\ud83d half", "? half"), ("", "")]
)
def test_text_of_a_provider_can_be_stored_and_sent(value: object, text: str) -> None:
    assert told(value) == text
    assert told(value).encode().decode() == text


@pytest.mark.parametrize("value", [5, ["a"], {"text": "a"}, b"a", True])
def test_what_is_no_text_is_malformed(value: object) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        told(value)
    assert caught.value.kind is Failure.MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too hot"}},
        {"error": None, "message": "too hot"},
        {"error": "", "detail": "too hot"},
        [{"error": {"code": 400, "message": "too hot", "status": "INVALID_ARGUMENT"}}],
    ],
)
def test_what_a_provider_says_is_wrong_is_told_wherever_it_stands(body: object) -> None:
    assert of_answer(400, body, {}, ()).message == "too hot"
    assert message_in(body) == "too hot"


def test_no_word_of_a_provider_holds_the_key_that_it_was_sent() -> None:
    body = {"error": {"message": "The key s3cr3ts3cr3t is bad.", "code": "bad:s3cr3ts3cr3t", "param": "key"}}
    failure = of_answer(400, body, {}, ("s3cr3ts3cr3t",))
    assert (failure.message, failure.code, failure.param) == ("The key [...] is bad.", None, "key")
