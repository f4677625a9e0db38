"""Scenario files (TOML) and recordings of real kernels (JSON), read into steps.

A scenario says what kernel to link, which devices there are, and the steps; a recording says the same of a real
kernel and what that kernel did at each step. Both readers bound what they read, and every error names file, record
and step.
"""

from pfnmap.scenario.file import Scenario, parse_scenario, read_scenario
from pfnmap.scenario.recording import Record, Recording, parse_recording, read_recording

__all__ = ["Record", "Recording", "Scenario", "parse_recording", "parse_scenario", "read_recording", "read_scenario"]
