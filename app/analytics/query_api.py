"""The endpoint for questions of one's own about all usage."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.access.api import Body, Instant, JsonRoute, printable
from app.access.deps import Db, Now, Reader
from app.access.guard import require_user
from app.analytics.query import NAMES, Answer, Question, ask
from app.core.clock import EPOCH, hour_of
from app.core.errors import InvalidInput
from app.core.money import to_usd
from app.summaries.grains import DAY, HOUR, LAST_YEAR, Grain, Span
from app.summaries.sums import NONE, Sums

router = APIRouter(route_class=JsonRoute, tags=["analytics"])

MOST_VALUES = 100
Name = Literal[
    "user_id",
    "provider",
    "model",
    "task_type",
    "endpoint",
    "status_code",
    "team_id",
    "api_key_id",
    "backend",
    "pool",
]
Measure = Literal[
    "calls",
    "errors",
    "error_rate",
    "tokens",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_reasoning_tokens",
    "requests",
    "cost_usd",
    "unpriced_calls",
    "avg_latency_ms",
    "avg_ttft_ms",
]
Value = Annotated[str, StringConstraints(max_length=512), AfterValidator(printable)]


class QueryIn(Body):
    """Which measures, by which names, of which calls, in which pieces of time.

    Without `to` it ends with the running hour, without `from` it begins a day before the end, and
    without `grain` the whole range is one piece. A filter allows one value or any of several; ""
    stands for calls that did not say. By team, key, backend or pool only the calls are told of that
    name one.
    """

    measures: list[Measure] = Field(min_length=1, max_length=20)
    group_by: list[Name] = Field(default_factory=list, max_length=len(NAMES))
    filters: dict[Name, Value | list[Value]] = Field(default_factory=dict)
    grain: Grain | None = None
    from_: Instant | None = Field(default=None, alias="from")
    to: Instant | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "measures": ["calls", "cost_usd", "error_rate"],
                    "group_by": ["model"],
                    "filters": {"provider": ["openai", "anthropic"]},
                    "grain": "day",
                    "from": "2026-11-01T00:00:00Z",
                    "to": "2026-12-01T00:00:00Z",
                }
            ]
        }
    )


class PieceOut(BaseModel):
    """What one group used in one piece of time, `start <= t < end`."""

    start: datetime
    end: datetime
    group: dict[str, str | int | None]
    measures: dict[str, int | float | str | None]


class AnswerOut(BaseModel):
    """Pieces of time, oldest first, none left out; each with every group that occurs at all."""

    from_: datetime = Field(serialization_alias="from")
    to: datetime
    grain: Grain | None
    group_by: list[str]
    items: list[PieceOut]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "from": "2026-11-01T00:00:00Z",
                "to": "2026-12-01T00:00:00Z",
                "grain": "day",
                "group_by": ["model"],
                "items": [
                    {
                        "start": "2026-11-01T00:00:00Z",
                        "end": "2026-11-02T00:00:00Z",
                        "group": {"model": "gpt-4o-mini"},
                        "measures": {"calls": 12, "cost_usd": "0.00432", "error_rate": 8.33},
                    }
                ],
            }
        }
    )


@router.post("/v1/analytics/query")
async def query(key: Reader, db: Db, clock: Now, body: QueryIn) -> AnswerOut:
    """Measures of all usage by what calls were named, from totals; refused where none are kept."""
    require_user(key, None)
    question = _question(body, clock.now())
    answer = await db.read(lambda tx: ask(tx, question))
    return AnswerOut(
        from_=question.span.start,
        to=question.span.end,
        grain=body.grain,
        group_by=list(body.group_by),
        items=_items(body, answer),
    )


def _question(body: QueryIn, now: datetime) -> Question:
    _refuse_repeated("/measures", body.measures)
    _refuse_repeated("/group_by", body.group_by)
    end = body.to or hour_of(now) + HOUR
    for side, moment in (("to", end), ("from", body.from_ or end)):
        if not EPOCH.year <= moment.year <= LAST_YEAR:
            raise InvalidInput.at(f"/{side}", f"usage lies between 1970 and {LAST_YEAR}")
    start = body.from_ or max(EPOCH, end - DAY)
    if end < start:
        raise InvalidInput.at("/to", "lies before `from`")
    filters = {str(name): _values(name, given) for name, given in body.filters.items()}
    return Question(Span(start, end), body.grain, body.group_by, filters)


def _refuse_repeated(pointer: str, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InvalidInput.at(f"{pointer}/{place}", f"{name} is given twice")


def _values(name: str, given: str | list[str]) -> Sequence[str]:
    values = [given] if isinstance(given, str) else given
    if not values or len(values) > MOST_VALUES:
        raise InvalidInput.at(f"/filters/{name}", f"one value, or a list of 1 to {MOST_VALUES}")
    for value in values:
        if name == "status_code" and not (
            value.isascii() and value.isdigit() and len(value) == 3 and value[0] != "0"
        ):
            raise InvalidInput.at(f"/filters/{name}", 'a status code in quotes, as "200"')
    return values


def _items(body: QueryIn, answer: Answer) -> list[PieceOut]:
    found = []
    for place, span in enumerate(answer.pieces):
        for group in answer.groups:
            sums = answer.sums.get((place, group), NONE)
            named = zip(body.group_by, group, strict=True)
            found.append(
                PieceOut(
                    **span._asdict(),
                    group={name: _shown(name, value) for name, value in named},
                    measures={name: figure_of(name, sums) for name in body.measures},
                )
            )
    return found


def _shown(name: str, value: Any) -> str | int | None:
    if name == "status_code":
        return int(value)
    return None if value == "" else str(value)


def figure_of(measure: str, sums: Sums) -> int | float | str | None:
    """One measure for the wire: money as a decimal string. Pure."""
    if measure == "cost_usd":
        return to_usd(sums.cost_nanos)
    found: int | float | None = getattr(sums, measure)
    return found
