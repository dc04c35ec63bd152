"""The SQLite file that ranks share."""

import contextlib
import sqlite3

from lightning_sd.critique.cache.database import Database

TABLES = "CREATE TABLE IF NOT EXISTS found (name TEXT)"


def test_another_process_may_make_the_tables_between_two_looks(tmp_path, monkeypatch):
    """Version 0 before, its tables after: that was taken for another program's file."""
    path = tmp_path / "cache.sqlite"
    met = []

    def intrude(statement):
        if "sqlite_master" in statement:
            met.append(statement)
            with contextlib.suppress(sqlite3.OperationalError):
                other = sqlite3.connect(path, timeout=0, isolation_level=None)
                other.execute("PRAGMA journal_mode=WAL")
                other.execute(TABLES)
                other.execute("PRAGMA user_version=1")
                other.close()

    connect = Database._connect

    def watched(self):
        connection = connect(self)
        connection.set_trace_callback(intrude)
        return connection

    monkeypatch.setattr(Database, "_connect", watched)
    database = Database(path, tables=TABLES, version=1)
    assert met
    assert database.connection.execute("PRAGMA user_version").fetchone()[0] == 1
    assert database.connection.execute("SELECT count(*) FROM found").fetchone()[0] == 0
