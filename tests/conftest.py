"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# How long things take is for benchmarks/ to measure.
settings.register_profile("hearth", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hearth")
