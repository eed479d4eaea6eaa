"""An exhausted quota, to clients that repeat every 429 whatever its headers say."""

import pytest

from src.api.errors import Dialect, error_response
from src.shared.errors import QuotaExceeded, RateLimited

AI_SDK = "ai/7.0.173 ai-sdk-provider-utils/5.0.81 node.js/24"


@pytest.mark.parametrize("dialect", [Dialect.OPENAI, Dialect.GEMINI])
@pytest.mark.parametrize(
    ("user_agent", "status"),
    [
        (AI_SDK, 402),
        ("ai-sdk/openai/2.0.1 ai-sdk/provider-utils/3.0 runtime/node.js/22", 402),
        ("langchain-google-genai/4.4.2-ChatGoogleGenerativeAI", 402),
        ("AsyncOpenAI/Python 3.52.0", 429),
        ("codex_exec/0.169.0", 429),
        ("openai-sdk/1 my-ai-sdkish/2", 429),
        ("", 429),
    ],
)
def test_an_exhausted_quota_is_a_402_to_them(dialect: Dialect, user_agent: str, status: int) -> None:
    error = QuotaExceeded("The user's quota cannot pay for this call.")
    told = error_response(error, dialect, "r", user_agent)
    assert (told.status_code, told.headers["x-should-retry"]) == (status, "false")
    assert b"insufficient_quota" in told.body or b"RESOURCE_EXHAUSTED" in told.body


def test_a_rate_limit_stays_a_429() -> None:
    assert error_response(RateLimited("Slow down.", retry_after_s=1), Dialect.OPENAI, "r", AI_SDK).status_code == 429
