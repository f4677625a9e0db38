"""The conformance kit for plugin authors: see `pfnmap.testing.conformance`, and docs/write-an-architecture.md."""

from pfnmap.testing.conformance import ArchConformance, DriverConformance

__all__ = ["ArchConformance", "DriverConformance"]
