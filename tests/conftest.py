"""Every test may ask for the servers of `tests.support`; none starts before the first test that does."""

pytest_plugins = ["tests.support.fixtures"]
