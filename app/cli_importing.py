"""What `tollgate import` does: where records come from, where events go, what came of it."""

import asyncio
import io
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import httpx
import msgspec
from pydantic import SecretStr
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.core.clock import Clock
from app.core.money import to_usd
from app.db.engine import Database
from app.ingest.imports.events import names_from
from app.ingest.imports.formats import FORMATS, Format, converter
from app.ingest.imports.litellm_spend import read_spend
from app.ingest.imports.records import Record, Shape, read_records, shape_of
from app.ingest.imports.runner import Convert, Rejected, Report, run_import
from app.ingest.imports.senders import OwnDoor, Rehearsal, Sender, Service, StoppedError
from app.pricing.known import Prices
from app.runtime import build
from app.settings import Settings
from app.start import take_packaged_prices
from app.terminal import REFUSALS, console, refuse, settings_from, with_database

SHOWN = 20
PEEKED = 4096


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line."""

    file: str
    form: str
    source: str | None
    map_: str | None
    user_from: str
    rejects: Path | None
    url: str | None
    key: str | None
    database_url: str | None
    from_line: int
    dry_run: bool
    reprice: bool


class _Open(NamedTuple):
    """A file that is being read."""

    text: TextIO
    raw: Any
    name: str
    size: int | None


def do_import(wish: Wish) -> int:
    """Import, show what came of it, and say the status to leave with: 1 if a line was rejected."""
    form = _chosen(wish)
    report = Report()
    with ExitStack() as stack:
        opened, begin = None, ""
        shape: Shape = "json"
        if wish.source is None:
            opened = stack.enter_context(_opened(wish.file))
            begin = _peek(opened.text)
            shape = "csv" if form == "csv" else shape_of(opened.name, begin)
        convert = _converter(form, wish, shape)
        name = Path(opened.name).name if opened is not None else "litellm"
        kept = stack.enter_context(_rejects(wish.rejects or Path(f"{name}.rejected.ndjson")))
        progress = stack.enter_context(_progress())
        task = progress.add_task("importing", total=None if opened is None else opened.size)

        def tell(so_far: Report) -> None:
            done = None if opened is None or opened.size is None else opened.raw.tell()
            said = f"{so_far.recorded:,} recorded, {so_far.duplicates:,} known"
            said += f", {so_far.rejected:,} rejected"
            progress.update(task, description=said, completed=done)

        async def records() -> AsyncIterator[Record]:
            if wish.source is not None:
                async for record in read_spend(wish.source):
                    yield record
            elif opened is not None:
                for record in read_records(opened.text, shape, begin):
                    yield record

        async def work(sender: Sender) -> None:
            await run_import(
                *(records(), convert, sender, kept),
                report=report,
                tell=tell,
                from_line=wish.from_line,
            )

        why = _run(work, wish)
    _show(report, kept, dry_run=wish.dry_run)
    if why is not None:
        _say_where(report)
        refuse(why)
    return 1 if report.rejected else 0


def _chosen(wish: Wish) -> Format:
    """The format, once the options are seen to make sense together."""
    found = next((form for form in FORMATS if form == wish.form), None)
    if found is None:
        refuse(f"--format: one of {', '.join(FORMATS)}")
    if wish.source is not None and found not in ("events", "litellm"):
        refuse("--from reads LiteLLM's spend logs; leave --format out")
    if wish.map_ is not None and found not in ("events", "csv"):
        refuse("--map is for the columns of a CSV of your own")
    if wish.url is not None and wish.key is None:
        refuse("--url needs --key, or TOLLGATE_KEY")
    if wish.url is not None and wish.dry_run:
        refuse("--dry-run looks into a database; give --database-url instead of --url")
    if wish.source is not None:
        return "litellm"
    return "csv" if wish.map_ is not None else found


def _converter(form: Format, wish: Wish, shape: Shape) -> Convert:
    try:
        names = None if wish.map_ is None else names_from(wish.map_)
    except ValueError as error:
        refuse(f"--map: {error}")
    users = tuple(name.strip() for name in wish.user_from.split(",") if name.strip())
    return converter(form, names=names, users=users, is_csv=shape == "csv", reprice=wish.reprice)


@contextmanager
def _opened(file: str) -> Iterator[_Open]:
    if file == "-":
        raw: Any = sys.stdin.buffer
        yield _Open(io.TextIOWrapper(raw, "utf-8", newline=""), raw, "import", None)
        return
    try:
        binary = open(file, "rb")  # noqa: SIM115  (closed by its text below)
    except OSError as error:
        refuse(str(error))
    with io.TextIOWrapper(binary, "utf-8", newline="") as text:
        yield _Open(text, binary, file, os.path.getsize(file))


def _peek(text: TextIO) -> str:
    try:
        return text.read(PEEKED)
    except UnicodeDecodeError:
        refuse("the file is not text in UTF-8")


class _Kept:
    """Rejected lines in a file that is only made when there is one; the first are shown too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: list[Rejected] = []
        self._file: TextIO | None = None

    def add(self, one: Rejected) -> None:
        """Keep a line."""
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8")
        self._file.write(msgspec.json.encode(one._asdict()).decode() + "\n")
        if len(self.first) < SHOWN:
            self.first.append(one)

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()


@contextmanager
def _rejects(path: Path) -> Iterator[_Kept]:
    kept = _Kept(path)
    try:
        yield kept
    finally:
        kept.close()


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


# ---- where to ---------------------------------------------------------------------------------


def _run(work: Callable[[Sender], Awaitable[None]], wish: Wish) -> str | None:
    """Do the work with the sender that was asked for; why it stopped, or None at the end."""
    try:
        if wish.url is not None:
            asyncio.run(_over_http(work, wish.url, wish.key or ""))
        elif wish.dry_run:
            _rehearse(work, wish.database_url)
        else:
            with_database(wish.database_url, _take_prices, make=True)
            asyncio.run(_in_process(work, settings_from(database_url=wish.database_url)))
    except KeyboardInterrupt:
        return "stopped"
    except (StoppedError, httpx.InvalidURL, *REFUSALS) as error:
        return str(error)
    return None


async def _take_prices(db: Database) -> None:
    await take_packaged_prices(db, Clock())


async def _in_process(work: Callable[[Sender], Awaitable[None]], settings: Settings) -> None:
    token = f"tg_{secrets.token_urlsafe(32)}"
    runtime = build(settings.model_copy(update={"admin_key": SecretStr(token)}))
    await runtime.start()
    try:
        await work(OwnDoor(runtime.events, token))
    finally:
        await runtime.close()


async def _over_http(work: Callable[[Sender], Awaitable[None]], url: str, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        await work(Service(http))


def _rehearse(work: Callable[[Sender], Awaitable[None]], database_url: str | None) -> None:
    async def act(db: Database) -> None:
        prices = Prices()
        await db.read(lambda tx: prices.reload(tx, set()))
        await work(Rehearsal(db, prices.catalog, Clock().now()))

    with_database(database_url, act)


# ---- what came of it --------------------------------------------------------------------------


def _show(report: Report, kept: _Kept, *, dry_run: bool) -> None:
    table = Table("would come" if dry_run else "what came", "")
    users = f"{len(report.users):,}{' or more' if report.more_users else ''}"
    for name, value in (
        ("records read", f"{report.records:,}"),
        ("to be recorded" if dry_run else "recorded", f"{report.recorded:,}"),
        ("of users", users),
        ("cost in USD", to_usd(report.cost_nanos)),
        ("of unknown cost", f"{report.unpriced:,}"),
        ("known already", f"{report.duplicates:,}"),
        ("left out, voided or empty", f"{report.left_out:,}"),
        ("rejected", f"{report.rejected:,}"),
    ):
        table.add_row(name, value)
    console.print(table)
    if not kept.first:
        return
    rejected = Table("line", "at", "why")
    for one in kept.first:
        rejected.add_row(str(one.line), one.pointer, one.detail)
    console.print(rejected)
    console.print(f"every rejected line is in {kept.path}", highlight=False, soft_wrap=True)


def _say_where(report: Report) -> None:
    console.print(
        f"all up to line {report.durable_line} is dealt with; start it again to go on, "
        f"with --from-line {report.durable_line + 1} to skip what is recorded",
        highlight=False,
        soft_wrap=True,
    )
