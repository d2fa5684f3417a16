"""Pages of prices: the book, what has no price, stating one, and what a call would cost."""

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from app.access.deps import Db, Now
from app.core.errors import Conflict, InvalidInput, NotFound
from app.dashboard.deps import Managing, SeenAll, Viewer, form
from app.dashboard.filled import Filled
from app.dashboard.frame import csv_answer, page
from app.dashboard.moves import Note, see
from app.dashboard.price_book import ORIGINS, counts_by_origin, found_in, read_entry
from app.dashboard.price_form import (
    MORE,
    OTHERS,
    RATE,
    USAGE,
    USUAL,
    block_of,
    doubts,
    drafted,
    estimated,
    price_in,
    refused,
)
from app.dashboard.price_tables import (
    ACT,
    BOOK,
    HOME,
    LINES,
    UNPRICED,
    book_rows,
    changes_of,
    conditions_of,
    force_of,
    line_rows,
    rate_text,
    unit_name,
    unpriced_rows,
)
from app.dashboard.users_api import Search, searched
from app.pricing.api import Known, start_of_page
from app.pricing.catalog import Resolution
from app.pricing.known import Prices
from app.pricing.prices_api import create, delete_price
from app.summaries.unpriced import Unpriced, list_unpriced

router = APIRouter()
ROWS, CSV_ROWS, UNPRICED_ROWS = 25, 20_000, 50
NO_FORM = Filled()


@router.get(HOME)
async def prices(
    viewer: SeenAll,
    db: Db,
    known: Known,
    q: Search = "",
    origin: str = "",
    cursor: Annotated[str | None, Query(max_length=12)] = None,
    done: str = "",
    format: str = "",
) -> Response:
    """The price book, searched by words of providers and models, and what has no price."""
    text, layer = searched(q), origin if origin in ORIGINS else ""
    found, start = found_in(known.catalog, text, layer), start_of_page(cursor)
    if format == "csv":
        return csv_answer("prices", BOOK, book_rows(found[:CSV_ROWS], raw=True))
    lacking, more = await db.read(lambda tx: list_unpriced(tx, None, UNPRICED_ROWS))
    keep = {name: value for name, value in (("q", text), ("origin", layer)) if value}
    here = f"{HOME}?{urlencode(keep)}"
    back, on = start - ROWS, start + ROWS
    act = viewer.key.may("manage")
    return page(
        viewer,
        "prices.html",
        text=text,
        origin=layer,
        origins=counts_by_origin(known.catalog),
        count=len(found),
        columns=BOOK,
        rows=book_rows(found[start:on]),
        csv=f"{here}&format=csv",
        previous=f"{here}&cursor={max(back, 0)}" if start else None,
        next=f"{here}&cursor={on}" if on < len(found) else None,
        unpriced_columns=[*UNPRICED, *([ACT] if act else [])],
        unpriced=unpriced_rows(lacking, act=act),
        more_unpriced=more,
        may_manage=act,
        done=done,
    )


@router.get(f"{HOME}/unpriced")
async def unpriced(viewer: SeenAll, db: Db, cursor: str = "", format: str = "") -> Response:
    """Every model that was seen without a price, as CSV, or back to the book."""
    if format != "csv":
        return see(f"{HOME}#unpriced")

    found: list[Unpriced] = []
    after: tuple[str, str] | None = None
    more = True
    while more and len(found) < CSV_ROWS:
        rows, more = await db.read(lambda tx, at=after: list_unpriced(tx, at, 1_000))  # type: ignore[misc]
        found += rows
        after = (rows[-1].provider, rows[-1].model) if rows else None
    return csv_answer("unpriced", UNPRICED, unpriced_rows(found, raw=True))


@router.get(f"{HOME}/entry")
async def entry(
    viewer: SeenAll, db: Db, known: Known, id: Annotated[str, Query(max_length=600)] = ""
) -> Response:
    """One price with all that it says, and every way in which a call may name its model."""
    if not id or not id.isprintable():
        raise NotFound("no such price")
    found = await db.read(lambda tx: read_entry(tx, known.catalog, id))
    row = found.book.row
    return page(
        viewer,
        "price_entry.html",
        entry=found,
        book=found.book,
        rates=[(unit_name(counter), rate_text(counter, rate)) for counter, rate in row.rates],
        changes=changes_of(row),
        conditions=conditions_of(found.book),
        force=force_of(row),
        may_retire=viewer.key.may("manage")
        and found.book.origin == "override"
        and found.book.retired_at is None,
    )


# ---- stating one --------------------------------------------------------------------------------


@router.get(f"{HOME}/new")
async def new(viewer: SeenAll, provider: Search = "", model: Search = "") -> Response:
    """The form for a price that does not exist yet."""
    values = {"provider": searched(provider), "model": searched(model)}
    return _form(viewer, Filled(values), {})


def _form(
    viewer: Viewer, filled: Filled, doubted: Mapping[str, str], status: int = 200
) -> Response:
    return page(
        viewer,
        "price_edit.html",
        status=status,
        filled=filled,
        doubted=doubted,
        usual=[_field(name) for name in USUAL],
        others=[_field(name) for name in OTHERS],
        others_filled=any(filled.value(f"{RATE}{name}").strip() for name in OTHERS),
        more_filled=any(filled.value(name).strip() or filled.error(name) for name in MORE),
        may_manage=viewer.key.may("manage"),
    )


def _field(counter: str) -> tuple[str, str, str]:
    many = "per million" if block_of(counter) > 1 else "each"
    return f"{RATE}{counter}", unit_name(counter), many


@router.post(HOME)
async def make(
    request: Request, viewer: Managing, db: Db, known: Known, clock: Now, note: Note
) -> Response:
    """State the price of the form; one that looks like a mistake is asked about first."""
    values = await form(request)
    try:
        body = price_in(values)
        doubted = {} if body.force else doubts(drafted(body), known, clock.now())
        if doubted:
            return _form(viewer, Filled(values, doubted), doubted, 422)
        await create(body, viewer.key, db, known, clock, note)
    except (InvalidInput, Conflict) as error:
        return _form(viewer, refused(values, error), {}, error.status)
    return see(f"{HOME}?{urlencode({'q': body.model, 'origin': 'override', 'done': 'stated'})}")


@router.post(f"{HOME}/retire")
async def retire(request: Request, viewer: Managing, db: Db, clock: Now, note: Note) -> Response:
    """Retire a stated price; what it was charged for stays."""
    price_id = (await form(request)).get("id", "")
    await delete_price(price_id, viewer.key, db, clock, note)
    return see(f"{HOME}?done=retired")


# ---- what a call would cost ---------------------------------------------------------------------


@router.get(f"{HOME}/estimate")
async def estimate(request: Request, viewer: SeenAll, known: Known, clock: Now) -> Response:
    """What a call would cost, line by line; nothing is stored."""
    values = dict(request.query_params)
    found, filled = None, Filled(values)
    try:
        for value in values.values():
            searched(value[:2_000].replace("\n", " ").replace("\r", " "))
        found = estimated(values, known, clock.now())
    except InvalidInput as error:
        filled = refused(values, error)
    return page(
        viewer,
        "price_estimate.html",
        filled=filled,
        found=found,
        columns=LINES,
        lines=[] if found is None else line_rows(found.lines),
        usual=[(USAGE + name, unit_name(name)) for name in USUAL],
        others=[(USAGE + name, unit_name(name)) for name in OTHERS],
        resolved=_resolved(known, values, clock),
    )


def _resolved(known: Prices, values: Mapping[str, str], clock: Now) -> Resolution | None:
    provider, model = (values.get(name, "").strip() or None for name in ("provider", "model"))
    return known.catalog.resolve(provider, model, clock.now()) if provider or model else None
