"""What the tests of corrections share: orders over HTTP, and the books with their corrections."""

from typing import Any

import httpx

from app.analytics.audit import PROOF_S, prove
from app.db.engine import Database
from app.usage.tables import UsageCorrection
from tests.conftest import START
from tests.properties.books import Key, Row, books_in, books_of, limits_in, log_in, rows_of

WHY = "the gateway was wrong"


async def void(client: httpx.AsyncClient, event_id: str, user: str = "ann", **headers: str) -> Any:
    path = f"/v1/users/{user}/events/{event_id}/void"
    answer = await client.post(path, json={"reason": WHY}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def correct(
    client: httpx.AsyncClient, event_id: str, user: str = "ann", **fields: Any
) -> Any:
    path = f"/v1/users/{user}/events/{event_id}/correct"
    answer = await client.post(path, json={"fields": fields, "reason": WHY})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def corrections_in(db: Database) -> dict[Key, list[Row]]:
    """The rows of corrections of each event, in their order."""
    found: dict[Key, list[Row]] = {}
    rows = await db.read(lambda tx: rows_of(tx, UsageCorrection))
    for row in sorted(rows, key=lambda row: row["revision"]):
        found.setdefault((row["user_id"], row["event_id"]), []).append(row)
    return found


async def standing_in(db: Database) -> dict[Key, Row]:
    """Every event that counts, as it stands after its corrections."""
    standing = dict(await log_in(db))
    for key, rows in (await corrections_in(db)).items():
        if rows[-1]["sign"] < 0:
            del standing[key]
        else:
            standing[key] = rows[-1]
    return standing


async def assert_corrected(db: Database) -> dict[Key, Row]:
    """The books are those of the events as they stand, and the proof agrees; they are given."""
    standing = await standing_in(db)
    expected = books_of(standing.values(), await limits_in(db))
    stored = await books_in(db)
    for name in ("periods", "hours", "dimensions"):
        found = {key: total for key, total in getattr(stored, name).items() if total}
        assert found == getattr(expected, name), name
    assert stored.counters == expected.counters
    assert set(expected.alerts) <= set(stored.alerts)
    proof = await db.read(lambda tx: prove(tx, START), within_s=PROOF_S)
    assert proof.consistent, proof.differences
    return standing
