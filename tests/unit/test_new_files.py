"""A database file that is made is nobody else's to read."""

import os
import stat
from pathlib import Path

import apsw
import pytest

from app.db import sqlite


def test_a_new_database_and_what_lies_beside_it_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        connection = sqlite.connect(str(tmp_path / "new.db"))
        connection.execute("CREATE TABLE t (a INTEGER) STRICT")
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        connection.close()
    finally:
        os.umask(before)
    assert found == {"new.db": 0o600, "new.db-wal": 0o600, "new.db-shm": 0o600}


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    path.touch()
    path.chmod(0o640)
    sqlite.connect(str(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_folder_that_is_missing_is_told_by_sqlite(tmp_path: Path) -> None:
    with pytest.raises(apsw.CantOpenError):
        sqlite.connect(str(tmp_path / "missing" / "new.db"))
