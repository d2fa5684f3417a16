"""The endpoint that Prometheus reads."""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from app.access.deps import Db, Now
from app.access.guard import require, require_user, token_from
from app.access.keys import KeyRing
from app.core.errors import NotFound, Unavailable
from app.db.changes import Feed
from app.metrics.text import OPEN, PLAIN, wants_open_metrics
from app.scrape.page import Scrape

router = APIRouter(tags=["operations"])

_EXAMPLE = """# HELP tollgate_checks_total Limit checks answered.
# TYPE tollgate_checks_total counter
tollgate_checks_total{verdict="allowed"} 1200.0
"""
_TEXT: dict[str, Any] = {
    "description": "Every figure, in the format that `Accept` asks for",
    "content": {
        "text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE},
        "application/openmetrics-text": {
            "schema": {"type": "string"},
            "example": f"{_EXAMPLE}# EOF\n",
        },
    },
}


async def _allowed(request: Request, db: Db, clock: Now) -> None:
    """Refuse whoever may not scrape; keys are known without the database, too."""
    feed: Feed = request.app.state.feed
    ring: KeyRing = request.app.state.keys
    token = token_from(request.headers.get("authorization"), request.headers.get("x-api-key"))
    with suppress(Unavailable):  # then the keys that were known last are those there are
        await db.glance(feed.catch_up)
    key = ring.admit(token, clock.now())
    require(key, "read")
    require_user(key, None)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: _TEXT, 404: {"description": "Metrics are switched off"}},
)
async def get_metrics(
    request: Request,
    db: Db,
    clock: Now,
    accept: Annotated[str, Header(max_length=1024)] = "",
) -> Response:
    """Figures for Prometheus, in its text format or as OpenMetrics.

    Needs a key with the scope `read` that is bound to no user, unless `TOLLGATE_METRICS` says
    otherwise. It answers while the database is down: `tollgate_database_up` is 0 then.
    """
    scrape: Scrape = request.app.state.scrape
    if scrape.mode == "off":
        raise NotFound("metrics are switched off")
    if scrape.mode == "key":
        await _allowed(request, db, clock)
    open_metrics = wants_open_metrics(accept)
    body = await scrape.page(open_metrics=open_metrics)
    return Response(body, media_type=OPEN if open_metrics else PLAIN)
