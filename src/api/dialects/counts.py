"""What every dialect's answer to a count of tokens tells besides the count."""

from src.api.errors import Dialect
from src.api.rate_headers import rate_headers
from src.domain.completion.counting import PromptCount


def count_headers(counted: PromptCount, dialect: Dialect) -> dict[str, str]:
    """For which model, whether it is our own estimate, and what is left of rate limits."""
    headers = {"x-gateway-model": counted.model} | ({"x-gateway-estimated": "true"} if counted.told is None else {})
    return headers | rate_headers(counted.levels, anthropic=dialect is Dialect.ANTHROPIC)
