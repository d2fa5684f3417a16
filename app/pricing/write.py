"""State a price or an alias, and retire it. Rows are added; nothing that was charged changes.

Every change is announced in its own transaction, so that the next batch of every process knows it.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, insert, select

from app.core.clock import MICROSECOND
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.ids import short_id
from app.db.changes import announce
from app.db.engine import Tx
from app.pricing.encoded import override_entry, rates_of
from app.pricing.names import provider_id
from app.pricing.rows import Alias, Override
from app.pricing.store import append_entries, append_rates, find_entries, load_aliases
from app.pricing.tables import ModelAlias, PriceEntry, PriceRetirement

Named = tuple[str, str | None]
"""A provider and a model's name, as an alias gives them a meaning."""
_newest = select(func.max(PriceEntry.created_at)).where(PriceEntry.version_id.is_(None))


async def add_override(tx: Tx, draft: Override, now: datetime, by: str) -> Override:
    """Put an operator's price in force and give it as it is stored, with its id.

    Of two that mean the same the later one wins, so no two are made at the same instant.
    """
    row = draft.row._replace(id=short_id("price"))
    newest = (await tx.fetch(_newest))[0][0]
    made_at = now if newest is None or newest < now else newest + MICROSECOND
    override = draft._replace(row=row, created_at=made_at)
    await append_entries(tx, [override_entry(override, made_at, by)])
    await append_rates(tx, list(rates_of(row)))
    await announce(tx, "prices", row.id, now)
    return override


async def retire_override(tx: Tx, price_id: str, now: datetime, by: str) -> None:
    """From the commit on, the price applies to no call; what it was charged for stays.

    Raises:
        NotFound: there is no such price, or it is retired already.
        Conflict: it is one of the catalogue's.
    """
    found = (await find_entries(tx, [price_id])).get(price_id)
    if found is None or found.retired_at is not None:
        raise NotFound("no such price", id=price_id)
    if found.version_id is not None:
        raise Conflict("a price of the catalogue stays; state another one that comes before it")
    await _retire(tx, price_id, now, by)


async def add_alias(
    tx: Tx, provider: str, model: str | None, resolves_to: str, now: datetime, by: str
) -> tuple[Alias, datetime]:
    """Say what a name means; what it meant before, it means no longer.

    Raises:
        InvalidInput: it would mean itself.
        Conflict: what it means is said to mean this name.
    """
    alias = Alias(
        short_id("alias"),
        provider if provider == "*" else provider_id(provider),
        None if model is None else model.strip().lower(),
        resolves_to.strip().lower(),
    )
    said = {(one.provider, one.model): one for one in await load_aliases(tx)}
    before = said.pop((alias.provider, alias.model), None)
    refuse_circle(alias, said)
    if before is not None:
        await _retire(tx, before.id, now, by)
    row = alias._asdict() | {"created_at": now, "created_by": by}
    await tx.run(insert(ModelAlias), [row])
    await announce(tx, "prices", alias.id, now)
    return alias, now


def refuse_circle(alias: Alias, others: Mapping[Named, Alias]) -> None:
    """Refuse an alias that leads a name back to itself, alone or with others. Pure.

    Raises:
        InvalidInput: it means itself.
        Conflict: others lead back.
    """
    name = (alias.provider, alias.model)
    said = {place: one.resolves_to for place, one in others.items()} | {name: alias.resolves_to}
    if name in _meant(name, said):
        raise InvalidInput.at("/resolves_to", "resolves_to: a name cannot stand for itself")
    for start in said:
        if _leads_back(start, said):
            detail = "with the other aliases, a name would stand for one that stands for it"
            raise Conflict(detail, provider=start[0], model=start[1])


def _leads_back(start: Named, said: Mapping[Named, str]) -> bool:
    ahead, seen = _meant(start, said), set[Named]()
    while ahead:
        place = ahead.pop()
        if place == start:
            return True
        if place not in seen:
            seen.add(place)
            ahead += _meant(place, said)
    return False


def _meant(name: Named, said: Mapping[Named, str]) -> list[Named]:
    """What a name stands for: a model of its provider, or `provider/model`. Pure."""
    provider, model = name
    target = said.get(name) or said.get(("*", model))
    if target is None:
        return []
    named, mark, rest = target.partition("/")
    return [(provider, target), *([(provider_id(named), rest)] if mark else [])]


async def list_aliases(tx: Tx) -> list[tuple[Alias, datetime]]:
    """Every alias in force with the instant it was made, oldest first."""
    query = select(ModelAlias.__table__).where(ModelAlias.id.not_in(select(PriceRetirement.id)))
    rows = await tx.fetch(query.order_by(ModelAlias.created_at, ModelAlias.id))
    return [
        (Alias(row.id, row.provider, row.model, row.resolves_to), row.created_at) for row in rows
    ]


async def retire_alias(tx: Tx, alias_id: str, now: datetime, by: str) -> None:
    """From the commit on, the alias means nothing.

    Raises:
        NotFound: there is no such alias, or it is retired already.
    """
    if alias_id not in {alias.id for alias in await load_aliases(tx)}:
        raise NotFound("no such alias", id=alias_id)
    await _retire(tx, alias_id, now, by)


async def _retire(tx: Tx, thing_id: str, now: datetime, by: str) -> None:
    row = {"id": thing_id, "retired_at": now, "created_by": by}
    await tx.run(insert(PriceRetirement), [row])
    await announce(tx, "prices", thing_id, now)
