"""Endpoints for operators' prices and model aliases, and for reading every price there is."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.access.api import Body, Id, Instant, JsonRoute, Name, Page, PageSize, Provider, printable
from app.access.deps import Db, Manager, Note, Now, Reader
from app.access.guard import require_user
from app.access.keys import Key
from app.core.counters import MICROS_PER_SECOND, SECONDS
from app.core.errors import NotFound
from app.core.money import to_usd
from app.db.engine import Tx
from app.pricing.api import Known, Short, Text, start_of_page
from app.pricing.drafts import PriceSaid, RateSaid, TierSaid, override_from, raise_if
from app.pricing.guard import own_rates, suspicions
from app.pricing.leaves import Rate
from app.pricing.names import provider_id
from app.pricing.rows import PER_MILLION, Override, PriceRow
from app.pricing.store import Stored, find_entries, versions
from app.pricing.write import add_alias, add_override, list_aliases, retire_alias, retire_override

router = APIRouter(route_class=JsonRoute, tags=["prices"])
KIND, ALIAS = "price", "model_alias"
PriceId = Annotated[str, Path(min_length=1, max_length=600), AfterValidator(printable)]
Model = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(printable)]
Usd = Annotated[str, StringConstraints(min_length=1, max_length=40)]


class TierIn(Body):
    """What a block costs up to a size, inclusive; null in the last tier."""

    up_to: int | None
    usd: Usd
    per: int


class RateIn(Body):
    """`usd` for a block of `per` units, or `tiers` with a `mode`.

    `cliff`: the size of the call decides for all of it; `graduated`: each part at its own rate.
    """

    usd: Usd | None = None
    per: int | None = None
    mode: Literal["cliff", "graduated"] | None = None
    tiers: list[TierIn] | None = Field(default=None, max_length=64)


class PriceIn(Body):
    """A price to state: for everyone, or for one user or one team.

    Without `effective_from` it holds always, without `effective_to` for ever. With `context` it is
    for calls under these conditions only. `default` with `*` prices what nothing else does.
    """

    provider: Provider
    model: Model
    match: Literal["exact", "prefix", "regex"] = "exact"
    user_id: Name | None = None
    team_id: Name | None = None
    effective_from: Instant | None = None
    effective_to: Instant | None = None
    context: dict[Short, Text] = Field(default_factory=dict, max_length=16)
    rates: dict[Short, RateIn] = Field(max_length=64)
    multiplier: Usd | None = None
    min_charge_usd: Usd | None = None
    min_quantity: dict[Short, float] = Field(default_factory=dict, max_length=64)
    default: bool = False
    source: Annotated[Text, AfterValidator(printable)] = ""
    force: bool = Field(default=False, description="Take a price that looks like a mistake.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "provider": "openai",
                    "model": "gpt-4o",
                    "user_id": "alice",
                    "effective_from": "2026-12-01T00:00:00Z",
                    "rates": {
                        "input_tokens": {"usd": "2", "per": 1_000_000},
                        "output_tokens": {
                            "mode": "cliff",
                            "tiers": [
                                {"up_to": 200_000, "usd": "8", "per": 1_000_000},
                                {"up_to": None, "usd": "12", "per": 1_000_000},
                            ],
                        },
                    },
                    "source": "contract 4711",
                }
            ]
        }
    )

    def said(self) -> PriceSaid:
        """The price as plain values."""
        rates = {name: _rate_said(rate) for name, rate in self.rates.items()}
        values = {name: getattr(self, name) for name in PriceSaid._fields}
        return PriceSaid(**values | {"rates": rates})


def _rate_said(rate: RateIn) -> RateSaid:
    tiers = None
    if rate.tiers is not None:
        tiers = tuple(TierSaid(tier.up_to, tier.usd, tier.per) for tier in rate.tiers)
    return RateSaid(rate.usd, rate.per, rate.mode, tiers)


class FlatOut(BaseModel):
    """What a block of `per` units costs."""

    usd: str
    per: int


class TierOut(FlatOut):
    """What a block costs up to a size, inclusive; null is without an end."""

    up_to: int | None


class TieredOut(BaseModel):
    """A rate by size: of the whole call (`cliff`), or each part at its own (`graduated`)."""

    mode: Literal["cliff", "graduated"]
    tiers: list[TierOut]


_PRICE: dict[str, Any] = {
    "id": "price_4f0c9a1b2c3d4e5f",
    "origin": "override",
    "provider": "openai",
    "model": "gpt-4o",
    "match": "exact",
    "user_id": "alice",
    "team_id": None,
    "effective_from": "2026-12-01T00:00:00Z",
    "effective_to": None,
    "weekdays": [],
    "hours": [],
    "context": {},
    "rates": {"input_tokens": {"usd": "2", "per": 1_000_000}},
    "multiplier": "1",
    "min_charge_usd": "0",
    "min_quantity": {},
    "default": False,
    "source": "contract 4711",
    "created_at": "2026-11-20T12:30:00Z",
    "retired_at": None,
}


class PriceOut(BaseModel):
    """One price entry. `origin` is the layer it is from, `override` for one that was stated.

    It holds from `effective_from` (null: always) until before `effective_to` (null: for ever),
    within `hours` of UTC and on `weekdays` (0 is Monday) where any are named. An entry without
    rates multiplies those of its model's other entries.
    """

    id: str
    origin: str
    provider: str
    model: str
    match: str
    user_id: str | None
    team_id: str | None
    effective_from: datetime | None
    effective_to: datetime | None
    weekdays: list[int]
    hours: list[str]
    context: dict[str, str]
    rates: dict[str, FlatOut | TieredOut]
    multiplier: str
    min_charge_usd: str
    min_quantity: dict[str, int | float]
    default: bool
    source: str
    created_at: datetime | None
    retired_at: datetime | None

    model_config = ConfigDict(json_schema_extra={"examples": [_PRICE]})


def _rate_out(rate: Rate) -> FlatOut | TieredOut:
    if len(rate.steps) == 1 and not rate.graduated:
        return FlatOut(usd=to_usd(rate.steps[0].nanos), per=rate.per)
    ends = [*(step.above for step in rate.steps[1:]), None]
    tiers = [
        TierOut(up_to=end, usd=to_usd(step.nanos), per=rate.per)
        for step, end in zip(rate.steps, ends, strict=True)
    ]
    return TieredOut(mode="graduated" if rate.graduated else "cliff", tiers=tiers)


def _row_out(row: PriceRow) -> dict[str, Any]:
    least = {
        name: count / MICROS_PER_SECOND if name in SECONDS else count for name, count in row.least
    }
    return {
        "id": row.id,
        "effective_from": row.start,
        "effective_to": row.end,
        "weekdays": list(row.weekdays),
        "hours": [f"{begin:%H:%M}-{end:%H:%M}" for begin, end in row.windows],
        "context": dict(row.when),
        "rates": {name: _rate_out(rate) for name, rate in row.rates},
        "multiplier": to_usd(row.multiplier_ppm * (10**9 // PER_MILLION)),
        "min_charge_usd": to_usd(row.min_charge_nanos),
        "min_quantity": least,
        "source": row.source,
    }


def _override_out(override: Override) -> PriceOut:
    return PriceOut(
        **_row_out(override.row),
        origin="override",
        provider=override.provider,
        model=override.model,
        match=override.match,
        user_id=override.user_id,
        team_id=override.team_id,
        default=override.default,
        created_at=override.created_at,
        retired_at=None,
    )


def _stored_out(stored: Stored) -> PriceOut:
    return PriceOut(
        **_row_out(stored.row),
        origin=stored.layer,
        provider=stored.provider,
        model=stored.model,
        match=stored.match or "exact",
        user_id=stored.user_id,
        team_id=stored.team_id,
        default=stored.is_default,
        created_at=stored.created_at,
        retired_at=stored.retired_at,
    )


@router.post("/v1/prices", status_code=201)
async def create(
    body: PriceIn, key: Manager, db: Db, known: Known, clock: Now, note: Note
) -> PriceOut:
    """State a price. It applies from the next batch on, in every process, to calls of its time.

    What was charged before stays as it was. A rate that is a thousand times the model's own one, or
    a thousandth of it, is taken for a mistake unless `force` is sent.
    """
    require_user(key, body.user_id)
    draft = override_from(body.said())
    now = clock.now()
    if not body.force:
        own = None
        if draft.match == "exact" and "*" not in (draft.provider, draft.model):
            own = known.catalog.resolve(draft.provider, draft.model, now)
        raise_if(suspicions(draft, own_rates(own), known.usual()))

    async def work(tx: Tx) -> PriceOut:
        made = _override_out(await add_override(tx, draft, now, key.id))
        await note(tx, "create", KIND, made.id, None, made)
        return made

    return await db.write(work, alone=True)


@router.get("/v1/prices")
async def list_prices(
    key: Reader,
    db: Db,
    known: Known,
    provider: Annotated[Provider | None, Query()] = None,
    model: Annotated[Model | None, Query(description="A model's id or one of its names.")] = None,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    limit: PageSize = 100,
) -> Page[PriceOut]:
    """Every price in force or to come, and what was in force before: stated ones first.

    A key that is bound to a user sees what is stated for that user and for everyone.
    """
    start = start_of_page(cursor)
    dates = {version.id: version.imported_at for version in await db.read(versions)}
    wanted = None if provider is None else provider_id(provider)
    name = None if model is None else model.strip().lower()
    found: list[Override | tuple[dict[str, Any], PriceRow]] = [
        one
        for one in known.catalog.overrides
        if (wanted is None or one.provider in (wanted, "*"))
        and (name is None or one.model.lower() in (name, "*"))
        and _may_see(key, one.user_id, one.team_id)
    ]
    for listing in known.catalog.price_list.listings:
        if wanted is not None and listing.provider != wanted:
            continue
        if name is not None and name != listing.model.lower() and name not in listing.names:
            continue
        facts = {"origin": listing.layer, "provider": listing.provider, "model": listing.model}
        found += [(facts, row) for row in listing.rows]
    shown = found[start : start + limit]
    items = [
        _override_out(one) if isinstance(one, Override) else _out(*one, dates) for one in shown
    ]
    more = start + limit
    return Page(items=items, next_cursor=str(more) if more < len(found) else None)


def _out(facts: dict[str, Any], row: PriceRow, dates: Mapping[str, datetime]) -> PriceOut:
    made = dates.get(row.id.partition(":")[0])
    nobody: dict[str, Any] = dict.fromkeys(("user_id", "team_id", "retired_at"))
    nobody |= {"default": False, "match": "exact", "created_at": made}
    return PriceOut(**_row_out(row), **facts, **nobody)


def _may_see(key: Key, user_id: str | None, team_id: str | None) -> bool:
    return key.user_id is None or (team_id is None and user_id in (None, key.user_id))


@router.get("/v1/prices/{price_id:path}")
async def get_price(price_id: PriceId, key: Reader, db: Db, known: Known) -> PriceOut:
    """One price entry by its id, also one that an older event cites and nothing uses any more."""
    found = (await db.read(lambda tx: find_entries(tx, [price_id]))).get(price_id)
    if found is not None and _may_see(key, found.user_id, found.team_id):
        return _stored_out(found)
    for listing in known.catalog.price_list.listings if found is None else ():
        for row in listing.rows:
            if row.id == price_id:
                facts = {"origin": listing.layer, "provider": listing.provider}
                return _out(facts | {"model": listing.model}, row, {})
    raise NotFound("no such price", id=price_id)


@router.delete("/v1/prices/{price_id:path}", status_code=204)
async def delete_price(price_id: PriceId, key: Manager, db: Db, clock: Now, note: Note) -> None:
    """Retire a stated price. Events keep the cost that they were rated with."""
    now = clock.now()

    async def work(tx: Tx) -> None:
        found = (await find_entries(tx, [price_id])).get(price_id)
        if found is not None and found.version_id is None:
            if not _may_see(key, found.user_id, found.team_id):
                raise NotFound("no such price", id=price_id)
            require_user(key, found.user_id)
        await retire_override(tx, price_id, now, key.id)
        before = None if found is None else _stored_out(found)
        await note(tx, "delete", KIND, price_id, before, None)

    await db.write(work, alone=True)


# ---- aliases ----------------------------------------------------------------------------------


class AliasIn(Body):
    """What a name means: a model of the provider, or `provider/model`.

    `model: null` is the provider's default model, for calls that name none.
    """

    provider: Provider
    model: Model | None = None
    resolves_to: Model

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"provider": "azure", "model": "prod-chat-eu", "resolves_to": "gpt-4o"}]
        }
    )


class AliasOut(BaseModel):
    """An alias in force."""

    id: str
    provider: str
    model: str | None
    resolves_to: str
    created_at: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "alias_4f0c9a1b2c3d4e5f",
                    "provider": "azure",
                    "model": "prod-chat-eu",
                    "resolves_to": "gpt-4o",
                    "created_at": "2026-11-20T12:30:00Z",
                }
            ]
        }
    )


@router.post("/v1/model-aliases", status_code=201)
async def create_alias(body: AliasIn, key: Manager, db: Db, clock: Now, note: Note) -> AliasOut:
    """Say which model a name means, an Azure deployment's for instance.

    Said again, the newer one holds. A name that would stand for itself is refused, and so is one
    that stands for another that stands for it (409).
    """
    require_user(key, None)
    places = {name: getattr(body, name) for name in ("provider", "model", "resolves_to")}
    raise_if(
        [
            {"pointer": f"/{name}", "detail": "must not be blank"}
            for name, value in places.items()
            if value is not None and not value.strip()
        ]
    )
    now = clock.now()

    async def work(tx: Tx) -> AliasOut:
        said = (body.provider, body.model, body.resolves_to)
        alias, made_at = await add_alias(tx, *said, now, key.id)
        made = AliasOut(**alias._asdict(), created_at=made_at)
        await note(tx, "create", ALIAS, made.id, None, made)
        return made

    return await db.write(work, alone=True)


@router.get("/v1/model-aliases")
async def list_all_aliases(
    _: Reader,
    db: Db,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    limit: PageSize = 100,
) -> Page[AliasOut]:
    """Every alias in force, oldest first."""
    start = start_of_page(cursor)
    found = await db.read(list_aliases)
    more = start + limit
    return Page(
        items=[AliasOut(**alias._asdict(), created_at=at) for alias, at in found[start:more]],
        next_cursor=str(more) if more < len(found) else None,
    )


@router.delete("/v1/model-aliases/{alias_id}", status_code=204)
async def delete_alias(alias_id: Id, key: Manager, db: Db, clock: Now, note: Note) -> None:
    """From the answer on, the name means nothing but itself."""
    require_user(key, None)
    now = clock.now()

    async def work(tx: Tx) -> None:
        known = {alias.id: (alias, at) for alias, at in await list_aliases(tx)}
        await retire_alias(tx, alias_id, now, key.id)
        alias, made_at = known[alias_id]
        before = AliasOut(**alias._asdict(), created_at=made_at)
        await note(tx, "delete", ALIAS, alias_id, before, None)

    await db.write(work, alone=True)
