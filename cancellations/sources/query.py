"""The answer to a query as a table, on any database that SQLAlchemy knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from cancellations.errors import BadInput, ServiceDown
from cancellations.sources.mapping import Reading
from cancellations.sources.tables import BATCH_ROWS, Chunk, check_names


class SqlTable:
    """The answer to a query, fetched in parts by a cursor that stays on the server where it can."""

    def __init__(self, reading: Reading, place: str, stem: str) -> None:
        self.place, self.stem = place, stem
        if reading.url is None:
            address = os.environ.get(reading.url_env or "", "")
            if not address:
                raise BadInput(f"{place}: the variable {reading.url_env} is not set; it is to hold the database's URL.")
        else:
            address = reading.url
        try:
            self._url = make_url(address)
            self._engine = create_engine(self._url)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            # The text of an address that cannot be read may hold its password.
            told = "it is no SQLAlchemy URL" if isinstance(error, ArgumentError) else str(error)
            raise BadInput(
                f"{place}: the database's URL cannot be used: {told}. One is postgresql+psycopg://user@host/name."
            ) from None
        self._query = text((reading.query or "").strip().rstrip(";").replace(":", r"\:"))
        self.columns: tuple[str, ...] = ()
        for chunk in self.chunks(rows=1):
            del chunk
            break

    def fingerprint(self) -> str | None:
        return None

    def chunks(self, rows: int = BATCH_ROWS) -> Iterator[Chunk]:
        first = 1
        try:
            with self._connected() as connection:
                answer = connection.execution_options(stream_results=True, max_row_buffer=rows).execute(self._query)
                if not answer.returns_rows:
                    raise BadInput(f"{self.place}: the query returns no table. Give a SELECT.")
                self.columns = check_names(list(map(str, answer.keys())), self.place)
                for part in answer.partitions(rows):
                    raw = pd.DataFrame(
                        [tuple(row) for row in part],
                        columns=list(self.columns),
                        index=pd.RangeIndex(first, first + len(part)),
                        dtype=object,
                    )
                    first += len(part)
                    yield Chunk(raw.infer_objects())
        except DBAPIError as error:
            told = self._without_password(error)
            if error.connection_invalidated:
                raise ServiceDown(f"{self.place}: the database is gone behind row {first - 1:,}: {told}") from None
            raise BadInput(f"{self.place}: the query fails behind row {first - 1:,}: {told}") from None
        except SQLAlchemyError as error:
            raise BadInput(f"{self.place}: the query fails: {self._without_password(error)}") from None
        finally:
            self._engine.dispose()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            connection = self._engine.connect()
        except DBAPIError as error:
            where = f"{self._url.host}/{self._url.database}" if self._url.host else self._url.database
            raise ServiceDown(
                f"{self.place}: the {self._url.get_backend_name()} database {where} cannot be reached:"
                f" {self._without_password(error)}"
            ) from None
        with connection:
            yield connection

    def _without_password(self, error: SQLAlchemyError) -> str:
        """What the driver says, in its words; some drivers repeat the address with everything in it."""
        told = str(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error).strip()
        for secret in (self._url.password, self._url.query.get("password")):
            if secret:
                told = told.replace(str(secret), "***")
        return told
