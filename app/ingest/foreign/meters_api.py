"""`/api/v1/meters`: our measures as OpenMeter's clients ask for them."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from app.access.deps import Db, Now, Reader
from app.access.guard import require_user
from app.core.clock import EPOCH
from app.core.errors import BadRequest, InvalidInput, NotFound
from app.ingest.foreign.cloudevents_api import shown
from app.ingest.foreign.meters import GRAINS, GROUPS, METERS, Query, Result, read_meter
from app.summaries.grains import LAST_YEAR
from app.usage.api import INSTANT, instant_from, legible

router = APIRouter(tags=["other formats"])
_ONCE = ("from", "to", "windowSize", "windowTimeZone", "clientId")
_SEVERAL = ("subject", "groupBy")
_FILTER = re.compile(r"filterGroupBy\[(\w+)\]")
_UTC = ("UTC", "Etc/UTC")
MOST_SUBJECTS = 100

_METER = METERS["tokens"].described()
_ANSWER: dict[str, Any] = {
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-12-01T00:00:00Z",
    "windowSize": "DAY",
    "data": [
        {
            "value": 18000,
            "windowStart": "2026-11-20T00:00:00Z",
            "windowEnd": "2026-11-21T00:00:00Z",
            "subject": "alice",
            "groupBy": {"model": "gpt-4o"},
        }
    ],
}
_PARAMETERS: list[dict[str, Any]] = [
    {"name": "from", "in": "query", "schema": {"type": "string"}, "description": INSTANT},
    {"name": "to", "in": "query", "schema": {"type": "string"}, "description": INSTANT},
    {"name": "windowSize", "in": "query", "schema": {"enum": list(GRAINS)}},
    {"name": "windowTimeZone", "in": "query", "schema": {"enum": list(_UTC)}},
    {
        "name": "subject",
        "in": "query",
        "schema": {"type": "array", "items": {"type": "string"}},
        "description": "Users, at most 100; rows are then by subject",
    },
    {
        "name": "groupBy",
        "in": "query",
        "schema": {"type": "array", "items": {"enum": list(GROUPS)}},
    },
    {
        "name": "filterGroupBy",
        "in": "query",
        "style": "deepObject",
        "explode": True,
        "schema": {"type": "object", "additionalProperties": {"type": "string"}},
    },
]
_REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"description": "A parameter that is not read here, or too much to tell"},
    404: {"description": "Nothing was counted on a meter of this name"},
}


@router.get(
    "/api/v1/meters", responses={200: {"description": "The meters", "content": shown([_METER])}}
)
async def list_meters(key: Reader) -> Response:
    """The measures that can be asked for as meters; plain meters are asked for by their names."""
    return _answer([one.described() for one in METERS.values()])


@router.get(
    "/api/v1/meters/{slug}",
    responses={200: {"description": "The meter", "content": shown(_METER)}, 404: _REFUSED[404]},
)
async def get_meter(key: Reader, slug: str) -> Response:
    """One of these meters."""
    if slug not in METERS:
        raise NotFound("there is no meter of this name", slug=slug[:256])
    return _answer(METERS[slug].described())


@router.get(
    "/api/v1/meters/{slug}/query",
    responses={
        200: {"description": "What was counted", "content": shown(_ANSWER)},
        **_REFUSED,
    },
    openapi_extra={"parameters": _PARAMETERS},
)
async def query_meter(request: Request, db: Db, clock: Now, key: Reader, slug: str) -> Response:
    """What a meter counted, by windows of hours, days or months in UTC, from totals.

    `from` and `to` are widened to whole hours, and the answer says to which. A window or a group
    in which nothing was used has no row. A key that is bound to a user is told of that user only.
    """
    legible(slug, "slug")
    query = _query(request.query_params.multi_items(), clock.now())
    if key.user_id is not None:
        for subject in query.filters.get("subject", [key.user_id]):
            require_user(key, subject)
        query = query._replace(filters={**query.filters, "subject": [key.user_id]})
    result = await db.read(lambda tx: read_meter(tx, slug, query))
    return _answer(_told(result, query))


def _query(given: Sequence[tuple[str, str]], now: datetime) -> Query:
    """The question in a query string.

    Raises:
        BadRequest: a parameter that is unknown, given twice or no value of its kind.
    """
    once: dict[str, str] = {}
    several: dict[str, list[str]] = {name: [] for name in _SEVERAL}
    filters: dict[str, list[str]] = {}
    for name, value in given:
        filtered = _FILTER.fullmatch(name)
        if "\0" in value or "\0" in name:
            raise BadRequest.at(f"/{name[:64]}".replace("\0", ""), "must not contain NUL")
        if name in several:
            several[name] += [value] if value not in several[name] else []
        elif filtered and filtered[1] in GROUPS and filtered[1] not in filters:
            filters[filtered[1]] = [value]
        elif name in _ONCE and name not in once:
            once[name] = value
        else:
            what = "given twice" if name in once else "not a parameter that is read here"
            raise BadRequest.at(f"/{name[:64]}", what)
    if several["subject"]:  # this both filters and groups
        if len(several["subject"]) > MOST_SUBJECTS:
            raise BadRequest.at("/subject", f"at most {MOST_SUBJECTS} subjects")
        filters["subject"] = several["subject"]
        several["groupBy"] += [] if "subject" in several["groupBy"] else ["subject"]
    for name in several["groupBy"]:
        if name not in GROUPS:
            raise BadRequest.at("/groupBy", f"one of {', '.join(GROUPS)}")
    window = once.get("windowSize")
    if window is not None and window not in GRAINS:
        raise BadRequest.at("/windowSize", f"one of {', '.join(GRAINS)}: totals are by the hour")
    if once.get("windowTimeZone", "UTC") not in _UTC:
        raise BadRequest.at("/windowTimeZone", "windows are cut in UTC")
    start, end = (_instant(once, name) for name in ("from", "to"))
    end = end or now
    if start is not None and start > end:
        raise BadRequest.at("/to", "lies before `from`")
    return Query(start, end, window, several["groupBy"], filters)


def _instant(given: Mapping[str, str], name: str) -> datetime | None:
    try:
        found = instant_from(given.get(name), name)
    except InvalidInput as error:
        raise BadRequest(error.detail, **error.extra) from None
    if found is not None and not EPOCH.year <= found.year <= LAST_YEAR:
        raise BadRequest.at(f"/{name}", f"usage lies between 1970 and {LAST_YEAR}")
    return found


def _told(result: Result, query: Query) -> dict[str, Any]:
    said = {"from": result.span.start, "to": result.span.end, "windowSize": query.window}
    return {name: value for name, value in said.items() if value} | {"data": result.rows}


_encode = msgspec.json.Encoder(decimal_format="number").encode


def _answer(said: object) -> Response:
    return Response(_encode(said), media_type="application/json")
