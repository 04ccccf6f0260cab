"""Hypothesis profiles: `HYPOTHESIS_PROFILE=thorough pytest tests/test_maps.py` draws 20,000 examples a property."""

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("default", max_examples=60, derandomize=True, **common)
settings.register_profile("thorough", max_examples=20_000, print_blob=True, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def seen_on_a_terminal():
    """Run the command line and return what it writes to a terminal as its standard error."""
    import pty

    pytest.importorskip("rich")

    def seen(*arguments):
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
        child = subprocess.Popen([sys.executable, "-m", "unitmass", *arguments], stderr=theirs, env=environment)
        os.close(theirs)
        drawn = b""
        with open(ours, "rb", buffering=0) as terminal:
            try:
                while piece := terminal.read(4096):
                    drawn += piece
            except OSError:  # the other end is closed
                pass
        assert child.wait() == 0
        return drawn

    return seen
