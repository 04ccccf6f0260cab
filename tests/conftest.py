"""Hypothesis profiles: `HYPOTHESIS_PROFILE=thorough pytest tests/test_maps.py` draws 20,000 examples a property."""

import os

from hypothesis import HealthCheck, settings

common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("default", max_examples=60, derandomize=True, **common)
settings.register_profile("thorough", max_examples=20_000, print_blob=True, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
