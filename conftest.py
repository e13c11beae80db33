"""Hypothesis on machines that are busy with other things: how long an example takes is no finding."""

from hypothesis import HealthCheck, settings

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
