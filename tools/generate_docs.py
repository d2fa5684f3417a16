"""Write docs/configuration.md and docs/schema.md from the code; a test keeps them fresh."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from sqlalchemy import Column, ForeignKeyConstraint, Index, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from app.db.types import Base
from app.models import METADATA
from app.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"
POSTGRES: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
SQLITE: Dialect = sqlite.dialect()

SERVES = {
    "ix_otlp_links_expires_at": "forgetting what was kept for long enough",
    "ix_otlp_tellings_expires_at": "forgetting what was kept for long enough",
    "ix_otlp_tellings_owner_likeness": "twins without an answer's id that ended at the same time",
    "ix_otlp_tellings_owner_response_key": "twins with the same answer's id in other traces",
    "pk_otlp_links": "the spans of a trace that name whom its calls belong to",
    "pk_otlp_tellings": "the spans of a trace that tell of model calls",
    "pk_catalog_activations": "the version in force",
    "pk_catalog_versions": "a version by its id",
    "pk_catalog_listings": "a version's models in their order",
    "pk_price_entries": "the entries that an event cites",
    "ix_price_entries_version_id": "operators' prices, which have no version",
    "pk_price_rates": "an entry's rates in their order",
    "pk_price_retirements": "whether a stated price or an alias still applies",
    "pk_model_aliases": "an alias by its id",
    "ix_hour_totals_provider_model_hour": "models seen without a price, and no other hours",
    "pk_alerts": "one alert per threshold that a counter crossed in a window, never two",
    "ix_alerts_id": "`POST /v1/alerts/{id}/read`",
    "ix_alerts_scope_key_created_at": "a user's alerts, newest first",
    "ix_alerts_unread": "unread alerts, newest first; whether there are any",
    "ix_alerts_created_at_id": "everyone's alerts, newest first",
    "ix_alerts_scope_key_limit_id_window_start": "limits that were reached and still may be",
    "pk_alert_rules": "one alert rule",
    "ix_alert_rules_scope_key": "the alert rules of a scope",
    "pk_dashboard_sessions": "whom a browser's cookie signs in",
    "pk_sign_in_links": "using a link, once",
    "ix_management_log_at": "the changes of a range of time, newest first",
    "ix_management_log_kind_ref": "the changes of one thing, newest first",
    "pk_management_log": "no change is written down twice; the order within an instant",
    "pk_api_keys": "revoking a key",
    "uq_api_keys_digest": "no key exists twice; looking one up needs no query, all are in memory",
    "pk_config_changes": "the newest version, read first by every transaction; what came after one",
    "pk_deliveries": "claiming and finishing one; `POST /v1/deliveries/{id}/retry`",
    "uq_deliveries_message_id_webhook_id": "a message goes to a webhook once; forgetting a message",
    "ix_deliveries_webhook_id_created_at": "what was sent to a webhook, newest first",
    "ix_deliveries_webhook_id_next_attempt_at": "what is due for a webhook, asked every second",
    "pk_delivery_attempts": "the attempts at a delivery, in order",
    "pk_outbox": "the message of a delivery",
    "ix_outbox_created_at": "forgetting old messages",
    "pk_webhooks": "one webhook",
    "pk_drift_totals": "the relative upsert of each batch with stated costs; a range of days",
    "pk_hour_dimensions": "the relative upsert of each batch; one dimension over a range of hours",
    "pk_hour_totals": "the relative upsert of each batch; one user over a range of hours",
    "pk_limit_counters": "the relative upsert of each batch; where a limit stands, by whole key",
    "ix_limit_counters_limit_id_window_start_scope_key": "every counter of a limit that runs now",
    "pk_hold_amounts": "what one hold has in a counter; what has expired in a counter",
    "pk_holds": "one hold, with its user or without",
    "ix_holds_user_id_created_at": "a user's open holds, newest first",
    "ix_holds_state_expires_at": "which open holds have expired, which others are old",
    "pk_foreign_parts": "the parts of one call or trace; a part that is sent again",
    "ix_foreign_parts_owner_trace_id": "calls that wait for what their trace says",
    "ix_foreign_parts_waiting_received_at": "calls that waited long enough; old parts",
    "pk_leases": "who does a job, and until when",
    "pk_limits": "one limit",
    "pk_limit_raises": "the raises of a limit, newest first",
    "ix_limits_scope_key": "the limits of a scope, when it is first needed or has changed",
    "pk_period_totals": "the relative upsert of each batch; one user's billing periods",
    "pk_plans": "one plan",
    "uq_plans_name": "no two plans have one name",
    "ix_rerates_created_at_id": "the re-rates, newest first",
    "pk_rerates": "one re-rate",
    "pk_usage_adjustments": "the history of one event",
    "pk_archives": "one archive; sealing and restoring it",
    "ix_archives_state_created_at": "archives by what became of them, newest first; leftovers",
    "pk_retention": "how long rows of everyone, or of one user, are kept",
    "pk_usage_corrections": "the corrections of one event, in order",
    "ix_usage_corrections_user_id_timestamp": "a user's corrections in a range of time",
    "pk_wrapped_events": "was this event archived already; which archive holds it",
    "ix_wrapped_events_user_id_archive_id": "the ids of an archive, to restore or to verify it",
    "pk_wrapped_usage": "what an archive's rows of a user add up to",
    "ix_wrapped_usage_user_id_hour": "a user's archived calls, by the hour",
    "pk_subscriptions": "the terms of a user, when first needed or changed",
    "ix_usage_events_provider_model_timestamp": "what is unpriced, for the job that prices it",
    "pk_usage_events": "is this event known already; one event",
    "ix_usage_events_user_id_timestamp": "a user's events, newest first, or in a range of time",
}
"""Which query each key and index is there for. One that serves none is not worth its writes."""

SPREADS = {
    "reference": "small and shared: a copy on every node",
    "local": "stays on the coordinator",
}


# ---- configuration ------------------------------------------------------------------------------


def configuration() -> str:
    """The page of every setting, in the order of `app/settings.py`."""
    rows = [_setting(name, field) for name, field in Settings.model_fields.items()]
    return "\n".join(
        [
            "# Configuration",
            "",
            "<!-- Written by `make docs` from app/settings.py; change it there. -->",
            "",
            "Settings are environment variables, read once at start. Options of `tollgate serve`",
            "(`--host`, `--port`, `--workers`, `--database-url`) win over them.",
            "",
            "| variable | default | allowed | what it decides |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _setting(name: str, field: FieldInfo) -> str:
    variable = f"{Settings.model_config['env_prefix']}{name}".upper()
    cells = [f"`{variable}`", _default(field), _allowed(field), field.description or ""]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or isinstance(value, SecretStr):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _allowed(field: FieldInfo) -> str:
    bounds: dict[str, Any] = {}
    for constraint in field.metadata:
        for name in ("ge", "le", "min_length", "pattern"):
            if getattr(constraint, name, None) is not None:
                bounds[name] = getattr(constraint, name)
    if "ge" in bounds and "le" in bounds:
        return f"{bounds['ge']} to {bounds['le']}"
    if "min_length" in bounds:
        return f"at least {bounds['min_length']} characters"
    if "pattern" in bounds:
        return ", ".join(f"`{word}`" for word in bounds["pattern"].strip("^$()").split("|"))
    return "`true`, `false`" if field.annotation is bool else ""


# ---- schema -------------------------------------------------------------------------------------


def schema() -> str:
    """The page of every table, by name."""
    tables = sorted(METADATA.tables.values(), key=lambda table: table.name)
    unused = set(SERVES) - {name for table in tables for name in _keys_of(table)}
    if unused:
        raise SystemExit(f"tools/generate_docs.py explains what is not there: {sorted(unused)}")
    return "\n".join(
        [
            "# Schema",
            "",
            "<!-- Written by `make docs` from the tables.py files; change it there. -->",
            "",
            "One schema, two engines. Instants are `timestamptz` on PostgreSQL and whole",
            "microseconds since 1970 on SQLite; money is whole nano-dollars. Every SQLite table is",
            "`STRICT`. **Spread** says how a table lies on a PostgreSQL of several nodes: by the",
            "column named, as a copy everywhere, or on the coordinator alone.",
            "",
            *(f"- [`{table.name}`](#{table.name})" for table in tables),
            "",
            *(line for table in tables for line in _table(table)),
        ]
    )


def _table(table: Table) -> list[str]:
    dist = table.info["dist"]
    spread = SPREADS.get(dist, f"by `{dist}`")
    inside = not table.dialect_options["sqlite"]["with_rowid"]
    return [
        f"## {table.name}",
        "",
        _sentence(table),
        "",
        f"Defined in `{_home(table)}`. Spread: {spread}."
        + (" On SQLite the rows are kept in the primary key (`WITHOUT ROWID`)." if inside else ""),
        "",
        "| column | PostgreSQL | SQLite | |",
        "|---|---|---|---|",
        *(_column(column) for column in table.columns),
        "",
        "| key or index | columns | serves |",
        "|---|---|---|",
        *(f"| {kind} | {columns} | {why} |" for kind, columns, why in _keys_of(table).values()),
        "",
    ]


def _mapped(table: Table) -> type[Any]:
    for mapper in Base.registry.mappers:
        if mapper.local_table is table:
            found: type[Any] = mapper.class_
            return found
    raise SystemExit(f"no class is mapped to {table.name}")


def _sentence(table: Table) -> str:
    lines = (_mapped(table).__doc__ or "").splitlines()
    return "\n".join(line.strip() for line in lines).strip()


def _home(table: Table) -> str:
    return _mapped(table).__module__.replace(".", "/") + ".py"


def _column(column: Column[Any]) -> str:
    for_postgres = column.type.compile(POSTGRES)
    for_sqlite = column.type.compile(SQLITE)
    notes = [] if column.nullable else ["not null"]
    if column.server_default is not None:
        notes.append("default 0")
    notes += [f"→ `{key.target_fullname}`" for key in column.foreign_keys]
    kinds = f"{for_postgres.lower()} | {for_sqlite.lower()}"
    return f"| `{column.name}` | {kinds} | {', '.join(notes)} |"


def _keys_of(table: Table) -> dict[str, tuple[str, str, str]]:
    """By name: what kind of key or index, its columns, and what it serves."""
    found: dict[str, tuple[str, str, str]] = {}

    def add(thing: Any, kind: str) -> None:
        columns = ", ".join(f"`{column.name}`" for column in thing.columns)
        name = _name(table, thing)
        if name not in SERVES:
            raise SystemExit(f"say in tools/generate_docs.py which query {name} serves")
        found[name] = (kind, columns, SERVES[name])

    add(table.primary_key, "primary key")
    for constraint in sorted(table.constraints, key=lambda one: _name(table, one)):
        if isinstance(constraint, UniqueConstraint):
            add(constraint, "unique")
        elif not isinstance(constraint, ForeignKeyConstraint) and constraint.name is None:
            raise SystemExit(f"{table.name} has a nameless constraint")
    for index in sorted(table.indexes, key=lambda one: _name(table, one)):
        add(index, "unique index" if index.unique else "index")
    return found


def _name(table: Table, thing: Any) -> str:
    """The name that the naming convention gives."""
    if isinstance(thing, Index) and thing.name is None:
        return f"ix_{table.name}_" + "_".join(column.name for column in thing.columns)
    if isinstance(thing, UniqueConstraint) and thing.name is None:
        return f"uq_{table.name}_" + "_".join(column.name for column in thing.columns)
    return str(thing.name) if thing.name else f"pk_{table.name}"


# ---- pages --------------------------------------------------------------------------------------

PAGES = {"configuration.md": configuration, "schema.md": schema}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
