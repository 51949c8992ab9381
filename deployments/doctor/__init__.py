"""Looks a live installation over: changes nothing, hangs on nothing, says what to mend and how."""

from deployments.doctor.checks import Check, examine

__all__ = ["Check", "examine"]
