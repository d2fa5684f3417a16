"""Whether what the database holds is whole: schema, keys, archives, and the identities."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from app.access.keys import Key, list_keys
from app.analytics.audit import PROOF_S, prove
from app.core.clock import rfc3339
from app.core.errors import AppError, Unavailable
from app.db.migrate import NEWEST, current_revision
from app.doctor.files import archive_folder
from app.doctor.finding import Finding, Patient
from app.retention.archives import Asked, list_archives
from app.retention.places import place_at
from app.retention.store import ArchiveStore

SCHEMA, KEYS, ARCHIVES, IDENTITIES = "schema", "keys", "archives", "identities"
SOON = timedelta(days=14)


async def schema(patient: Patient) -> list[Finding]:
    """Whether the migrations of this version have run, and no newer ones."""
    found = await current_revision(patient.settings.database_url)
    said = f"revision {found}, and this version works with {NEWEST}"
    if found == NEWEST:
        return [Finding(SCHEMA, "ok", f"revision {found}")]
    newer = found is not None and found > NEWEST
    advice = "start a newer version of the service" if newer else "run `tollgate migrate`"
    return [Finding(SCHEMA, "fail", said, advice)]


async def keys(patient: Patient) -> list[Finding]:
    """Keys that expire soon, and whether anybody may still manage."""
    now = patient.clock.now()
    live = [key for key in await patient.db.read(list_keys) if key.is_live(now)]
    found = [
        Finding(
            KEYS,
            "warn",
            f"{key.prefix}… ({key.name}) expires {rfc3339(key.expires_at)}",
            "make its successor now: `tollgate keys create`, or POST /v1/api-keys",
        )
        for key in live
        if key.expires_at is not None and key.expires_at - now < SOON
    ]
    if patient.settings.admin_key is None and not any(_is_admin(key) for key in live):
        advice = '`tollgate keys create --name "new admin" --scopes admin`'
        found.append(Finding(KEYS, "warn", "no live key has the scope admin", advice))
    return found or [Finding(KEYS, "ok", f"{len(live)} keys are live, none expires soon")]


def _is_admin(key: Key) -> bool:
    return "admin" in key.scopes


async def archives(patient: Patient) -> list[Finding]:
    """Whether archives can be kept, and the newest one is there as it was written."""
    url, folder = patient.settings.archive_url, archive_folder(patient)
    try:
        if folder is None:
            await asyncio.to_thread(_probe, url)
        newest = await patient.db.read(lambda tx: list_archives(tx, Asked("sealed"), None, 1))
        if not newest:
            return [_empty(url, folder)]
        store = ArchiveStore(url)
        try:
            size, digest = await store.size_and_hash(newest[0].path)
        finally:
            await store.close()
    except (AppError, OSError) as error:
        advice = "see TOLLGATE_ARCHIVE_URL, its driver and its credentials"
        return [Finding(ARCHIVES, "fail", f"{url}: {error}", advice)]
    if (size, digest) != (newest[0].bytes, newest[0].sha256):
        said = f"{newest[0].id} is not the file that was written"
        return [Finding(ARCHIVES, "fail", said, "run `tollgate archives verify --all`")]
    return [Finding(ARCHIVES, "ok", f"{url}: the newest archive is whole")]


def _empty(url: str, folder: Path | None) -> Finding:
    if folder is not None and not folder.exists() and not folder.parent.is_dir():
        advice = "make it, or set TOLLGATE_ARCHIVE_URL: without it no log can be wrapped"
        return Finding(ARCHIVES, "warn", f"{folder.parent} is not there", advice)
    return Finding(ARCHIVES, "ok", f"{url}: nothing was archived yet")


def _probe(url: str) -> None:
    """Keep something small, read it and remove it.

    Raises:
        Unavailable: what was read is not what was kept.
    """
    place, name = place_at(url), f"probe-{uuid4().hex}"
    try:
        place.put(name, b"tollgate")
        if place.get(name) != b"tollgate":
            raise Unavailable("what was kept there is read back as something else")
    finally:
        place.delete(name)


async def identities(patient: Patient) -> list[Finding]:
    """Whether log, totals, counters and alerts agree, on one snapshot."""
    now = patient.clock.now()
    proof = await patient.db.read(lambda tx: prove(tx, now), within_s=PROOF_S)
    if proof.consistent:
        compared = sum(verdict.compared for verdict in proof.verdicts)
        said = f"{len(proof.verdicts)} identities hold, {compared:,} values compared"
        return [Finding(IDENTITIES, "ok", said)]
    advice = "keep a copy of the database, then see `tollgate audit` and `tollgate audit --repair`"
    return [
        Finding(IDENTITIES, "fail", f"{one.name}: {one.differing:,} values differ", advice)
        for one in proof.verdicts
        if not one.holds
    ]
