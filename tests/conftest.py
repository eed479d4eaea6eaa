"""Every test may ask for the servers of `tests.support`; none starts before the first test that does."""

from hypothesis import settings

pytest_plugins = ["tests.support.fixtures"]

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
