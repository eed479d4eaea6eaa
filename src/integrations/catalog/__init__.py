"""The dated data file of models and prices that comes with the gateway."""

from pathlib import Path

MODELS_FILE = Path(__file__).with_name("models.yaml")
"""Same format as GATEWAY_CONFIG."""
