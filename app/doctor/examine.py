"""Run the checks, each by itself: one that cannot be made says so and holds up no other."""

import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import apsw
from asyncpg import PostgresError
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from app.core.clock import Clock
from app.core.errors import AppError
from app.db.engine import Database
from app.doctor import environment, files, postgres, space, state, versions, work
from app.doctor.finding import Finding, Patient
from app.settings import Settings

Check = Callable[[Patient], Awaitable[list[Finding]]]
QUICK: dict[str, Check] = {
    state.SCHEMA: state.schema,
    versions.CHECK: versions.versions,
    files.CHECK: files.files,
    space.CHECK: space.space,
    postgres.DURABILITY: postgres.durability,
    postgres.CLOCK: postgres.clock,
    postgres.CONNECTIONS: postgres.connections,
    postgres.POOLER: postgres.pooler,
    work.JOBS: work.jobs,
    work.OUTBOX: work.outbox,
    state.ARCHIVES: state.archives,
    state.KEYS: state.keys,
}
CHECKS: dict[str, Check] = QUICK | {state.IDENTITIES: state.identities}
DATABASE = "database"
NAMES = (environment.CHECK, DATABASE, *CHECKS)
_NEEDS_SCHEMA = {
    *(space.CHECK, work.JOBS, work.OUTBOX),
    *(state.ARCHIVES, state.KEYS, state.IDENTITIES),
}
_EXPECTED: Any = (AppError, OSError, ValueError, DBAPIError, PostgresError, apsw.Error)


async def examine(
    settings: Settings,
    variables: Mapping[str, str],
    clock: Clock,
    *,
    wanted: Collection[str] = NAMES,
    replicas: int = 1,
    tell: Callable[[str], None] = lambda name: None,
) -> list[Finding]:
    """Make the checks that are wanted, and say what each found; nothing is changed.

    `tell` is given the name of each check before it is made.
    """
    found = environment.variables(variables) if environment.CHECK in wanted else []
    if missing := _missing(settings.database_url):
        return [*found, missing]
    db = Database.open(settings.database_url, pool_size=4)
    try:
        patient = Patient(settings, variables, db, clock, replicas)
        answers = await _made(DATABASE, _answers, patient)
        if DATABASE in wanted or answers[0].state == "fail":
            found += answers
        if answers[0].state == "fail":
            return found
        is_current = (await _made(state.SCHEMA, state.schema, patient))[0].state == "ok"
        for name, check in CHECKS.items():
            if name in wanted and (is_current or name not in _NEEDS_SCHEMA):
                tell(name)
                found += await _made(name, check, patient)
        return found
    finally:
        await db.close()


def _missing(database_url: str) -> Finding | None:
    """That there is no such file, which opening it would make."""
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite" or os.path.exists(url.database or ""):
        return None
    advice = "the first `tollgate serve` makes it; see TOLLGATE_DATABASE_URL"
    return Finding(DATABASE, "fail", f"there is none at {url.database}", advice)


async def _made(name: str, check: Check, patient: Patient) -> list[Finding]:
    try:
        return await check(patient)
    except _EXPECTED as error:
        said = f"{type(error).__name__}: {error}"[:300]
        return [Finding(name, "fail", said, "this could not be looked at")]


async def _answers(patient: Patient) -> list[Finding]:
    """Whether the database can be opened and read."""
    url = make_url(patient.settings.database_url).render_as_string(hide_password=True)
    await patient.db.read(_nothing)
    return [Finding(DATABASE, "ok", f"{url} answers")]


async def _nothing(tx: object) -> None:
    """Being let in is enough."""
