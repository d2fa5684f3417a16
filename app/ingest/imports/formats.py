"""Which formats can be imported, and how a record of each becomes events."""

from collections.abc import Mapping
from typing import Literal, get_args

from app.ingest.imports.events import event_from_columns, event_from_line
from app.ingest.imports.litellm_spend import USERS, event_from_spend
from app.ingest.imports.records import Record
from app.ingest.imports.runner import Convert, Event
from app.ingest.imports.tables import event_from_log, events_from_summary

Format = Literal["events", "litellm", "csv", "s1-logs", "s1-summaries"]
FORMATS: tuple[Format, ...] = get_args(Format)


def converter(
    form: Format,
    *,
    names: Mapping[str, str] | None = None,
    users: tuple[str, ...] = USERS,
    is_csv: bool = False,
    reprice: bool = False,
) -> Convert:
    """What makes events of a record; with `reprice` costs that it states are not taken."""

    def events_of(record: Record) -> list[Event]:
        if form == "s1-summaries":
            return events_from_summary(record)
        if form == "s1-logs":
            return [event_from_log(record)]
        if form == "litellm":
            return [event_from_spend(record, users)]
        if is_csv or form == "csv":
            event = event_from_columns(record, names or {})
        else:
            event = event_from_line(record)
        return [] if event is None else [event]

    if not reprice:
        return events_of

    def without_costs(record: Record) -> list[Event]:
        return [
            {name: value for name, value in event.items() if name != "cost_usd"}
            for event in events_of(record)
        ]

    return without_costs
