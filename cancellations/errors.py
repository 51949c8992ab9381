"""Every error that the project raises on purpose, as one tree.

    CancellationsError                  exit code 2 unless said otherwise
    ├── BadInput                        2  a file, a row, an option that cannot be used
    ├── Refused                         1  a rule said no: gate, budget, pause, busy
    │   ├── NotEnoughData
    │   ├── LeaseLost                      another worker holds, or took, the lease
    │   └── EpochMismatch                  the champion is not the expected one any more
    └── ServiceDown                     3  a server that we need does not answer

A message says what was found, where, and what to do next.
"""

from __future__ import annotations


class CancellationsError(Exception):
    """Something that a person can mend; the message says how."""

    exit_code = 2


class BadInput(CancellationsError):
    """A file, a row, a setting or an option cannot be used as it is."""


class Refused(CancellationsError):
    """A rule said no; nothing was changed."""

    exit_code = 1


class NotEnoughData(Refused):
    """There are too few matured bookings to do what was asked."""


class LeaseLost(Refused):
    """Another worker holds the lease, or took it after ours had expired."""


class EpochMismatch(Refused):
    """The champion changed since it was read; nothing was written."""


class ServiceDown(CancellationsError):
    """A server that this step needs does not answer."""

    exit_code = 3
