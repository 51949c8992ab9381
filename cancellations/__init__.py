"""Keeps a reservation-cancellation model right while the world moves."""

__version__ = "0.1.0"
