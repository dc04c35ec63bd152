"""SQLite connections that are safe across processes, threads and forks."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_BUSY_SECONDS = 120.0
_PAGE_CACHE_KIB = 16 * 1024


class _ThreadConnection:
    """One thread's connection, closed when the thread ends.

    SQLite connections hold reference cycles. Without this class an ended thread would leave its
    open files to the garbage collector, and training may start one thread per step.

    A connection must be neither used nor closed in a process that did not create it: closing it
    there would checkpoint and delete the parent's write-ahead log.
    """

    def __init__(self, connection: sqlite3.Connection, database: Database) -> None:
        self.connection, self.pid = connection, os.getpid()
        self._database = weakref.ref(database)

    def __del__(self) -> None:
        database = self._database()
        if database is None:
            return  # the database object is being deleted, and the connection may still be in use
        if self.pid == os.getpid():
            self.connection.close()
        else:
            database.inherited.append(self.connection)


class Database:
    """One SQLite file in WAL mode, with one connection per process and thread.

    WAL mode needs shared memory: all users of a file must run on one machine, and the file must be
    on a local disk. With several nodes, use one file per node and merge the files.

    Args:
        path: The file. Its folder is created if it is missing.
        tables: SQL statements that create the tables, separated by semicolons.
        version: Version of the tables.

    Raises:
        ValueError: The file is not a SQLite database, or its tables have another version.
    """

    def __init__(self, path: Path, *, tables: str, version: int) -> None:
        self.path = path
        self._tables, self._version = tables, version
        self._local = threading.local()
        self.inherited: list[sqlite3.Connection] = []
        """Connections of the parent process, kept open after a fork."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._create_with_retries()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "tables": self._tables, "version": self._version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], tables=state["tables"], version=state["version"])  # type: ignore[misc]

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection, in autocommit mode."""
        current: _ThreadConnection | None = getattr(self._local, "current", None)
        if current is None or current.pid != os.getpid():
            current = self._local.current = _ThreadConnection(self._connect(), self)
        return current.connection

    @contextmanager
    def write_transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction: all of its writes are stored, or none.

        The write lock is taken at once, because a transaction that starts by reading cannot wait
        for the lock later.
        """
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.rollback()
            raise
        connection.commit()

    def close(self) -> None:
        """Close this thread's connection. The next use opens a new one."""
        current: _ThreadConnection | None = getattr(self._local, "current", None)
        if current is not None and current.pid == os.getpid():
            current.connection.close()
            self._local.current = None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        # NORMAL survives the death of any process. Only a power cut may lose the last writes.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA cache_size=-{_PAGE_CACHE_KIB}")
        return connection

    def _create_with_retries(self) -> None:
        """Create the tables, also when several processes open a new file at the same moment."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._create()
                return
            except sqlite3.OperationalError as error:
                # The switch to WAL mode does not wait for other connections; it fails.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            except sqlite3.DatabaseError as error:
                raise ValueError(
                    f"{self.path}: not a critique cache ({error}). Name another file or folder."
                ) from error

    def _create(self) -> None:
        version, tables = self._read_version()
        if version == self._version:
            return
        if version or tables:
            raise ValueError(
                f"{self.path}: its tables have version {version}, this program writes version "
                f"{self._version}. Name another file or folder."
            )
        self.connection.execute("PRAGMA journal_mode=WAL")
        with self.write_transaction() as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in self._tables.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={self._version}")

    def _read_version(self) -> tuple[int, int]:
        """Return the version and the number of tables, read in one transaction."""
        connection = self.connection
        connection.execute("BEGIN")
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            return version, connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        finally:
            connection.rollback()
