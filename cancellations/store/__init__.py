"""The store: `ports.Store` on SQLite or PostgreSQL, with its schema's history."""

from cancellations.store.integrity import Database, Finding, Reached
from cancellations.store.schema import check, revision, upgrade
from cancellations.store.unit_of_work import SqlStore, SqlUnitOfWork, open_store

__all__ = ["Database", "Finding", "Reached", "SqlStore", "SqlUnitOfWork", "check", "open_store", "revision", "upgrade"]
