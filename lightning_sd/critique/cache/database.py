"""SQLite connections that are safe between processes, threads and forks."""

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


class _Opened:
    """A thread's connection, closed when the thread ends.

    Connections refer to themselves, so without this each ended thread would leave its open files to
    the garbage collector, and training may start a thread a step.

    It must not be used, nor closed, in a process that it was not made in: closing it there would
    checkpoint and delete the parent's write-ahead log.
    """

    def __init__(self, connection: sqlite3.Connection, database: Database) -> None:
        self.connection, self.pid = connection, os.getpid()
        self._database = weakref.ref(database)

    def __del__(self) -> None:
        database = self._database()
        if database is None:
            return  # it is the database that goes, and the connection may be in use still
        if self.pid == os.getpid():
            self.connection.close()
        else:
            database.inherited.append(self.connection)


class Database:
    """One SQLite file in WAL mode; every process and thread has a connection of its own.

    WAL needs shared memory, so all users of a file must be on one machine and the file on a local
    disk: with several nodes, keep one file a node and merge them.

    Args:
        path: The file; its folder is made if it is missing.
        tables: SQL that makes the tables if they are missing.
        version: Version of the tables.

    Raises:
        ValueError: The file is no such database, or of another version.
    """

    def __init__(self, path: Path, *, tables: str, version: int) -> None:
        self.path = path
        self._tables, self._version = tables, version
        self._local = threading.local()
        self.inherited: list[sqlite3.Connection] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._create()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "tables": self._tables, "version": self._version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], tables=state["tables"], version=state["version"])  # type: ignore[misc]

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection, in autocommit mode."""
        opened: _Opened | None = getattr(self._local, "opened", None)
        if opened is None or opened.pid != os.getpid():
            opened = self._local.opened = _Opened(self._connect(), self)
        return opened.connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is written whole or not at all.

        It takes the write lock at once: one that began by reading could not wait for it later.
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
        """Close this thread's connection; the next use opens another."""
        opened: _Opened | None = getattr(self._local, "opened", None)
        if opened is not None and opened.pid == os.getpid():
            opened.connection.close()
            self._local.opened = None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        # NORMAL survives the death of any process; only a power cut may lose the last moments.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA cache_size=-{_PAGE_CACHE_KIB}")
        return connection

    def _create(self) -> None:
        """Make the tables, also when several processes come first at the same moment."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._try_create()
                return
            except sqlite3.OperationalError as error:
                # The switch to WAL does not wait for other connections, it fails.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            except sqlite3.DatabaseError as error:
                raise ValueError(f"{self.path} is no critique cache: {error}.") from error

    def _held(self) -> tuple[int, int]:
        """Version and number of the tables, both of one moment: another process may be at it."""
        connection = self.connection
        connection.execute("BEGIN")
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            return version, connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        finally:
            connection.rollback()

    def _try_create(self) -> None:
        found, strange = self._held()
        if found == self._version:
            return
        if found or strange:
            raise ValueError(
                f"{self.path} holds tables of version {found}, this program writes version "
                f"{self._version}. Name another file or folder."
            )
        self.connection.execute("PRAGMA journal_mode=WAL")
        with self.writing() as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in self._tables.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={self._version}")
