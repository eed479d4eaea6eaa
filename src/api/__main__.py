"""`python -m src.api` is `llm-gateway`."""

from src.api.cli import main

main()
