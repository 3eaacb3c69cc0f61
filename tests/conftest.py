"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("hearth", deadline=None)  # how long things take is for benchmarks/ to measure
settings.load_profile("hearth")
