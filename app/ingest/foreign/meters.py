"""OpenMeter's questions about meters, put to the totals that answer every other question."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from app.analytics.everyone import first_hour
from app.analytics.query import Answer, Question, ask
from app.core.errors import BadRequest, InvalidInput, NotFound
from app.core.money import NANOS_PER_USD
from app.db.engine import Tx
from app.ingest.foreign.metered import METER
from app.summaries.grains import Grain, Span, whole_hours
from app.summaries.sums import Sums

GRAINS: Mapping[str, Grain] = {"HOUR": "hour", "DAY": "day", "MONTH": "month"}
GROUPS: Mapping[str, str] = {
    "subject": "user_id",
    "provider": "provider",
    "model": "model",
    "task_type": "task_type",
}
"""What OpenMeter's clients group by, and our name of it."""
_PLACES = {"/grain": "/windowSize", "/group_by": "/groupBy", "/filters": "/filterGroupBy"}


class Meter(NamedTuple):
    """A measure under the name that it has as a meter; `counts` says what it sums up."""

    slug: str
    measure: str
    counts: str

    def described(self) -> dict[str, Any]:
        """The meter as OpenMeter's API shows one; it has no dates, being always there."""
        return {
            "id": self.slug,
            "slug": self.slug,
            "name": self.slug,
            "description": self.counts,
            "aggregation": "COUNT" if self.measure == "calls" else "SUM",
            "eventType": "*",
            **({} if self.measure == "calls" else {"valueProperty": f"$.{self.slug}"}),
            "groupBy": {name: f"$.{name}" for name in GROUPS if name != "subject"},
        }


METERS: Mapping[str, Meter] = {
    one.slug: one
    for one in (
        Meter("tokens", "tokens", "Input and output tokens together"),
        Meter("input_tokens", "input_tokens", "Input tokens, cached ones among them"),
        Meter("output_tokens", "output_tokens", "Output tokens, reasoning among them"),
        Meter("requests", "calls", "Calls, failed ones among them"),
        Meter("cost", "cost_nanos", "Cost in USD, of the calls whose cost is known"),
        Meter("errors", "errors", "Calls with a status of 400 or more"),
        Meter("cache_read_tokens", "cache_read_tokens", "Input tokens read from a cache"),
        Meter("cache_write_tokens", "cache_write_tokens", "Input tokens written to a cache"),
        Meter("output_reasoning_tokens", "output_reasoning_tokens", "Output tokens of reasoning"),
        Meter("input_audio_tokens", "input_audio_tokens", "Input tokens of audio"),
        Meter("output_audio_tokens", "output_audio_tokens", "Output tokens of audio"),
        Meter("input_image_tokens", "input_image_tokens", "Input tokens of images"),
        Meter("output_image_tokens", "output_image_tokens", "Output tokens of images"),
        Meter("billed_requests", "requests", "The counter `requests`, that plain meters count on"),
    )
}


class Query(NamedTuple):
    """What somebody asks of a meter; without `start` it begins with the first usage of all."""

    start: datetime | None
    end: datetime
    window: str | None
    group_by: Sequence[str]
    filters: Mapping[str, Sequence[str]]


class Result(NamedTuple):
    """The hours that were looked at, and what was counted in them."""

    span: Span
    rows: list[dict[str, Any]]


async def read_meter(tx: Tx, slug: str, query: Query) -> Result:
    """What a meter counted, in whole hours, which the range is widened to.

    A name that is none of ours is that of a plain meter, as events of other kinds count on.

    Raises:
        NotFound: nothing was counted on a meter of this name.
        BadRequest: there is too much to tell, or no totals are kept by these names together.
    """
    known = METERS.get(slug)
    filters = {GROUPS[name]: values for name, values in query.filters.items()}
    if known is None:
        filters |= {"provider": [METER], "model": [slug]}
    start = query.start or await first_hour(tx) or query.end
    span = whole_hours(Span(min(start, query.end), query.end))
    grain = GRAINS[query.window] if query.window else None
    names = [GROUPS[name] for name in query.group_by]
    try:
        answer = await ask(tx, Question(span, grain, names, filters))
    except InvalidInput as error:
        raise _as_asked(error) from None
    if known is None and not answer.sums:
        raise NotFound("nothing was counted on a meter of this name", slug=slug)
    measure = known.measure if known else "requests"
    return Result(span, _rows(answer, query.group_by, measure))


def _rows(answer: Answer, group_by: Sequence[str], measure: str) -> list[dict[str, Any]]:
    """One row for each piece of time and group in which anything was used, oldest first."""
    places = {group: number for number, group in enumerate(answer.groups)}
    rows = []
    for place, group in sorted(answer.sums, key=lambda key: (key[0], places[key[1]])):
        named = dict(zip(group_by, (one or None for one in group), strict=True))
        piece = answer.pieces[place]
        rows.append(
            {
                "value": _value(answer.sums[place, group], measure),
                "windowStart": piece.start,
                "windowEnd": piece.end,
                "subject": named.pop("subject", None),
                "groupBy": named,
            }
        )
    return rows


def _value(sums: Sums, measure: str) -> int | Decimal:
    if measure == "cost_nanos":
        return Decimal(sums.cost_nanos) / NANOS_PER_USD
    found: int = getattr(sums, measure)
    return found


def _as_asked(error: InvalidInput) -> BadRequest:
    """The refusal with the names that OpenMeter's clients use."""
    places = [
        one | {"pointer": _PLACES.get(one["pointer"], one["pointer"])}
        for one in error.extra.get("errors", [])
    ]
    return BadRequest(error.detail, errors=places)
