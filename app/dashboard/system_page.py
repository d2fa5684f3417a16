"""How the service itself stands: its jobs, its database, its settings, and the last proof."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr
from sqlalchemy import select, text

from app.analytics.audit import Proof
from app.core.clock import rfc3339
from app.db.engine import Tx
from app.db.lease import Lease, mark_of, note
from app.settings import Settings

PROOF = "proof"
"""The name under which the last proof is kept, among the marks of jobs."""
SECRET = ("key", "secret", "token", "password", "credential")
_REVISION = text("SELECT version_num FROM alembic_version")
_SQLITE_SIZE = (
    "SELECT page_count * page_size, sqlite_version() FROM pragma_page_count(), pragma_page_size()"
)
_POSTGRES_SIZE = "SELECT pg_database_size(current_database()), current_setting('server_version')"


class JobShown(NamedTuple):
    """A job: who does it now or did it last, and what came of it.

    `until_at` is when the lease ends; it is running where that lies ahead. All is None of a job
    that nobody has done yet.
    """

    name: str
    holder: str | None
    until_at: datetime | None
    mark: str | None
    done_at: datetime | None
    failed_at: datetime | None
    failure: str | None


class DatabaseShown(NamedTuple):
    """The database: which one, how many bytes it takes, and at which revision its schema is."""

    dialect: str
    version: str
    bytes: int
    revision: str


class Told(NamedTuple):
    """What a proof found, as it is kept for whoever looks later. An identity is (name, compared,
    how many values differ).
    """

    checked_at: datetime
    identities: Sequence[tuple[str, int, int]]

    @property
    def differing(self) -> int:
        return sum(one[2] for one in self.identities)


async def shown_jobs(tx: Tx, names: Iterable[str]) -> list[JobShown]:
    """These jobs, in their order, then whatever else was done under a lease."""
    columns = [getattr(Lease, field) for field in JobShown._fields]
    rows = await tx.fetch(select(*columns).where(Lease.name != PROOF).order_by(Lease.name))
    found = {row[0]: JobShown._make(row) for row in rows}
    known = [found.pop(name, JobShown(name, *(None,) * 6)) for name in names]
    return known + list(found.values())


async def shown_database(tx: Tx) -> DatabaseShown:
    """What the database tells of itself."""
    lite = tx.dialect == "sqlite"
    size, version = (await tx.fetch(text(_SQLITE_SIZE if lite else _POSTGRES_SIZE)))[0]
    row = await tx.first(_REVISION)
    return DatabaseShown(tx.dialect, str(version), int(size), "" if row is None else row[0])


# ---- the last proof ---------------------------------------------------------------------------


async def keep_proof(tx: Tx, proof: Proof, now: datetime) -> None:
    """Keep what a proof found, in place of the one before."""
    identities = [[one.name, one.compared, one.differing] for one in proof.verdicts]
    kept = {"checked_at": rfc3339(proof.checked_at), "identities": identities}
    await note(tx, PROOF, json.dumps(kept), now)


async def last_proof(tx: Tx) -> Told | None:
    """What the last proof found that was asked for on these pages; None before the first."""
    mark = await mark_of(tx, PROOF)
    if not mark:
        return None
    kept = json.loads(mark)
    identities = [(name, compared, differing) for name, compared, differing in kept["identities"]]
    return Told(datetime.fromisoformat(kept["checked_at"]), identities)


def told(proof: Proof) -> Told:
    """A proof as it is kept."""
    return Told(
        proof.checked_at, [(one.name, one.compared, one.differing) for one in proof.verdicts]
    )


# ---- settings ---------------------------------------------------------------------------------


class SettingShown(NamedTuple):
    """A setting in force: where it is set, what it is now, and whether that is the default."""

    name: str
    value: str
    is_default: bool
    description: str


def shown_settings(settings: Settings) -> list[SettingShown]:
    """Every setting, in the order in which they are documented, without what is secret."""
    return [
        SettingShown(
            f"TOLLGATE_{name.upper()}",
            _shown(name, getattr(settings, name)),
            getattr(settings, name) == field.default,
            field.description or "",
        )
        for name, field in type(settings).model_fields.items()
    ]


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "not set"
    secret = any(part in SECRET for part in name.split("_"))
    if isinstance(value, SecretStr) or (secret and not isinstance(value, bool | int | float)):
        return "set, and not shown"
    if isinstance(value, str) and "://" in value:
        return _without_password(value)
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _without_password(url: str) -> str:
    """A URL without what stands before the host, and without a query: either may hold a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = f"…@{host}" if "@" in parts.netloc else host
    return urlunsplit((parts.scheme, user, parts.path, "…" if parts.query else "", ""))
