"""The terminal, about prices: `tollgate prices sync`, `show`, `diff`, `import`, `override`."""

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from app.core.clock import Clock, rfc3339
from app.core.counters import COUNTERS, INDEX
from app.core.errors import AppError, InvalidInput
from app.core.money import to_usd
from app.db.engine import Database, Tx
from app.pricing.catalog import Resolution
from app.pricing.diff import Difference
from app.pricing.drafts import PriceSaid, RateSaid, override_from, raise_if
from app.pricing.entries import ALWAYS, MIDNIGHT
from app.pricing.guard import own_rates, suspicions
from app.pricing.known import Prices
from app.pricing.rows import Override, PriceList
from app.pricing.sources import packaged_sources
from app.pricing.store import Version
from app.pricing.sync import OWN, Synced, sync
from app.pricing.write import add_override
from app.terminal import DatabaseUrl, console, note_by_hand, refuse, with_database

prices = typer.Typer(help="See and change what calls cost.", no_args_is_help=True)
STEPS = ("reading", "compiling", "comparing", "writing")
SHOWN = 40
Force = Annotated[bool, typer.Option("--force", help="Take it though a lot would move.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and stop.")]


# ---- whole lists ------------------------------------------------------------------------------


@prices.command("sync")
def prices_sync(
    force: Force = False, dry_run: DryRun = False, database_url: DatabaseUrl = None
) -> None:
    """Put the price list of this release in force; what was charged before stays as it was."""
    price_list, sources = _packaged()
    _take(price_list, sources, force=force, dry_run=dry_run, database_url=database_url)


@prices.command("import")
def prices_import(
    file: Annotated[Path, typer.Argument(help="Prices as TOML, see docs/pricing.md.")],
    force: Force = False,
    dry_run: DryRun = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Put prices of your own in force, in place of those of the file imported before."""
    from app.pricing.overlay import parse_overlay  # noqa: PLC0415  (not for serving)

    try:
        text = file.read_text(encoding="utf-8")
        listings = parse_overlay(text)
    except (OSError, ValueError) as error:
        refuse(f"{file}: {error}")
    if any(listing.layer == "default" for listing in listings):
        refuse(f"{file}: state a default with `tollgate prices override --default`")
    if not listings:
        refuse(f"{file}: there is no price in it")
    own = tuple(listing._replace(layer=OWN) for listing in listings)
    digest = sha256(text.encode()).hexdigest()[:12]
    sources = f"{file.name} {digest}"
    _take(PriceList("", (), own), sources, force=force, dry_run=dry_run, database_url=database_url)


@prices.command("diff")
def prices_diff(database_url: DatabaseUrl = None) -> None:
    """Compare the price list of this release with the one in force."""
    price_list, sources = _packaged()
    _take(price_list, sources, force=True, dry_run=True, database_url=database_url)


def _packaged() -> tuple[PriceList, str]:
    from app.pricing.packages import read_packages  # noqa: PLC0415  (41 MB: not for serving)

    with console.status("reading the price list of this release"):
        return read_packages(), packaged_sources()


def _take(
    price_list: PriceList, sources: str, *, force: bool, dry_run: bool, database_url: str | None
) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("connecting", total=len(STEPS))

        def tell(step: str) -> None:
            progress.update(task, description=step, completed=STEPS.index(step))

        async def work(db: Database) -> Synced:
            return await sync(
                db,
                price_list,
                sources,
                now=Clock().now(),
                by="terminal",
                force=force,
                dry_run=dry_run,
                tell=tell,
                also=_note_list,
            )

        found = with_database(database_url, work, make=True)
    if found.difference is not None:
        _show_difference(found.difference)
    if found.objections:
        refuse(f"left alone: {'; '.join(found.objections)}. Take it with --force.")
    if found.is_new:
        console.print(f"{found.version_id} is in force", highlight=False)
    elif found.difference is None and not dry_run:
        console.print(f"{found.version_id} is in force already", highlight=False)
    elif found.difference is None:
        console.print("nothing would change" if found.version_id else "nothing is in force yet")


async def _note_list(tx: Tx, before: Version | None, after: Version) -> None:
    known = None if before is None else before._asdict()
    await note_by_hand(tx, "sync", "price_list", after.id, known, after._asdict())


def _show_difference(found: Difference) -> None:
    console.print(
        f"{found.compared} prices compared: {len(found.moves)} change, "
        f"{len(found.new)} models are new, {len(found.vanished)} vanish",
        highlight=False,
    )
    if found.moves:
        table = Table("model", "conditions", "unit", "USD per million", "becomes", "percent")
        for move in found.moves[:SHOWN]:
            percent = move.percent
            table.add_row(
                f"{move.provider}/{move.model}",
                move.conditions,
                move.unit if move.above < 0 else f"{move.unit} > {move.above}",
                "" if move.old_usd is None else f"{float(move.old_usd):g}",
                "" if move.new_usd is None else f"{float(move.new_usd):g}",
                "" if percent is None else f"{float(percent):+.1f} %",
            )
        console.print(table)
    for what, keys in (("new", found.new), ("vanished", found.vanished)):
        names = [f"{provider}/{model}" for _, provider, model, *_ in keys]
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            console.print(f"{what}: {', '.join(names[:SHOWN])}{more}", highlight=False)


# ---- single prices ----------------------------------------------------------------------------


@prices.command("show")
def prices_show(
    provider: str,
    model: str,
    at: Annotated[datetime | None, typer.Option(help="UTC; absent: now.")] = None,
    user: Annotated[str | None, typer.Option(help="With this user's own prices.")] = None,
    team: Annotated[str | None, typer.Option(help="With this team's own prices.")] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Show what a call of a model costs, and why it is this price."""
    moment = Clock().now() if at is None else at.replace(tzinfo=UTC)
    known = with_database(database_url, _known)
    found = known.catalog.resolve(provider, model, moment, None, user, team)
    if found is None:
        refuse(f"no price is known for {provider} {model}")
    _show(found, moment)


async def _known(db: Database) -> Prices:
    known = Prices()
    await db.read(lambda tx: known.reload(tx, set()))
    return known


def _show(found: Resolution, moment: datetime) -> None:
    sure = "" if found.sure else ", a guess: its costs are `estimated`"
    console.print(
        f"[bold]{found.provider}/{found.model}[/bold] on {rfc3339(moment)}\n"
        f"  why     {found.rule}{sure}\n  from    {found.layer}, {found.price_ref}",
        highlight=False,
    )
    period = found.period
    since = "always" if period.start == ALWAYS else rfc3339(period.start)
    until = "" if period.end is None else f" until {rfc3339(period.end)}"
    console.print(f"  holds   {since}{until}", highlight=False)
    if not period.begin == period.until == MIDNIGHT:
        days = ",".join(map(str, period.weekdays)) or "every day"
        hours = f"{period.begin:%H:%M}-{period.until:%H:%M} UTC"
        console.print(f"  hours   {hours}, {days}", highlight=False)
    table = Table("unit", "from", "USD", "per")
    for rate in found.rates:
        for above, usd in rate.usd:
            table.add_row(rate.unit, f"> {above:,}" if above else "", usd, f"{rate.per:,}")
    console.print(table)


@prices.command("override")
def prices_override(
    provider: str,
    model: str,
    usd_per_million: Annotated[
        str | None, typer.Option(help="input=2.5,output=10,cache_read=1.25")
    ] = None,
    usd_per_unit: Annotated[
        str | None, typer.Option(help="requests=0.01,output_images=0.04")
    ] = None,
    match: Annotated[str, typer.Option(help="exact, prefix or regex")] = "exact",
    user: Annotated[str | None, typer.Option(help="For this user alone.")] = None,
    team: Annotated[str | None, typer.Option(help="For this team alone.")] = None,
    effective_from: Annotated[datetime | None, typer.Option("--from", help="UTC")] = None,
    effective_to: Annotated[datetime | None, typer.Option("--to", help="UTC")] = None,
    default: Annotated[bool, typer.Option("--default", help="Only where nothing else is.")] = False,
    source: Annotated[str, typer.Option(help="Where the figures are from.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Take what looks like a mistake.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """State a price; it applies from the next batch on, in every process."""
    if match not in ("exact", "prefix", "regex"):
        refuse("--match: exact, prefix or regex")
    rates = dict(_rates(usd_per_million, 1_000_000, "--usd-per-million"))
    rates |= dict(_rates(usd_per_unit, 1, "--usd-per-unit"))
    said = PriceSaid(
        provider,
        model,
        rates,
        match,
        user,
        team,
        None if effective_from is None else effective_from.replace(tzinfo=UTC),
        None if effective_to is None else effective_to.replace(tzinfo=UTC),
        default=default,
        source=source,
    )
    try:
        draft = override_from(said)
    except InvalidInput as error:
        _refuse_all(error)
    now = Clock().now()

    async def work(db: Database) -> Override:
        if not force:
            known = await _known(db)
            own = None
            if match == "exact" and "*" not in (draft.provider, draft.model):
                own = known.catalog.resolve(draft.provider, draft.model, now)
            raise_if(suspicions(draft, own_rates(own), known.usual()))

        async def write(tx: Tx) -> Override:
            made = await add_override(tx, draft, now, "terminal")
            rates = {
                name: {"usd": to_usd(rate.steps[0].nanos), "per": rate.per}
                for name, rate in made.row.rates
            }
            facts = {"provider": made.provider, "model": made.model, "rates": rates}
            of = {"user_id": made.user_id, "team_id": made.team_id, "match": made.match}
            await note_by_hand(tx, "create", "price", made.row.id, None, facts | of)
            return made

        return await db.write(write, alone=True)

    made = with_database(database_url, work)
    if json:
        shown = {
            name: {"usd": to_usd(rate.steps[0].nanos), "per": rate.per}
            for name, rate in made.row.rates
        }
        facts = {"id": made.row.id, "provider": made.provider, "model": made.model}
        print(msgspec.json.encode(facts | {"rates": shown}).decode())  # noqa: T201
        return
    console.print(f"{made.row.id} is in force", highlight=False)


def _rates(text: str | None, per: int, option: str) -> Iterable[tuple[str, RateSaid]]:
    """Read `input=2.5,output=10`; `_tokens` may be left out."""
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, mark, usd = (piece.strip() for piece in part.partition("="))
        counter = name if name in INDEX else f"{name}_tokens"
        if not mark or counter not in INDEX:
            refuse(f"{option}: {part!r} is none of {', '.join(COUNTERS)} with a price")
        yield counter, RateSaid(usd, per)


def _refuse_all(error: AppError) -> NoReturn:
    wrong = error.extra.get("errors", ())
    refuse("; ".join(f"{each['pointer'].lstrip('/')}: {each['detail']}" for each in wrong))
