"""Every test may ask for the servers of `tests.support`; none starts before the first test that does."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.fixtures"]

# Hypothesis tries the same examples in every run, so that a run tells of the code and not of luck; new ones are looked
# for by `make fuzz`. How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None, max_examples=5000, suppress_health_check=list(HealthCheck))
settings.load_profile("repeatable")
