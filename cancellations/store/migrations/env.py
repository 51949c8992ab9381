"""Alembic's entry: runs on the connection that `store.schema` hands over, or, for the `alembic`
command, on the database of the settings (`CANCELLATIONS_DATABASE_URL`)."""

from __future__ import annotations

from typing import Literal

from alembic import context
from sqlalchemy import Connection

from cancellations import settings
from cancellations.store.engine import parse
from cancellations.store.schema import migrating
from cancellations.store.tables import Instant, metadata


def rendered(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Migrations name database types only, so that they stay true when our code changes."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, Instant) else False


def run(connection: Connection) -> None:
    # SQLite cannot alter most of a table in place: batch operations rebuild it.
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        render_item=rendered,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    context.configure(url=settings.load().store_url, target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    with migrating(parse(settings.load().store_url)) as connection:
        run(connection)
