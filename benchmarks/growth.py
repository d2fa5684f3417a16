"""`python -m benchmarks.growth`: the same work on a log that grows, each size by the first."""

import argparse
import asyncio
import gc
import json
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.analytics.query import Question, ask
from app.analytics.usage import read_trends, read_usage
from app.core.clock import Clock, hour_of, rfc3339
from app.db.engine import Database
from app.db.upgrade import upgrade
from app.main import create_asgi
from app.retention.policy import Policy
from app.retention.wrap import wrap
from app.runtime import Runtime, build
from app.settings import Settings
from app.start import take_packaged_prices
from app.summaries.grains import Span
from app.web.lean import LeanRequest
from app.web.logs import configure
from benchmarks import bodies, servers
from benchmarks.__main__ import machine, on_memory_disk

SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
SPREAD = timedelta(days=30)
FILLERS, BATCH = 4, 1_000
CALLERS, LIMITED, READ_USERS = 64, 20, 60
SLICE = 2_000
QUESTION = ["provider", "model"]


class Figure(NamedTuple):
    """What was measured at one size, and whether more of it is better."""

    value: float
    unit: str
    more_is_better: bool


@dataclass
class Grown:
    """One engine: figures by size, by what was measured."""

    engine: str
    sizes: list[int]
    figures: dict[str, list[Figure]]
    filled_s: list[float]

    def ratio(self, name: str, place: int) -> float:
        """How a size compares with the first one: above 1 is faster for rates, slower for times."""
        first = self.figures[name][0].value
        return self.figures[name][place].value / first if first else 0.0


class Garden:
    """A service's parts in this process, and the events that make its log grow."""

    def __init__(self, runtime: Runtime, final: int) -> None:
        self._runtime, self._final = runtime, final
        self._pick, self._next_id = random.Random(7), bodies.id_maker()
        self._began = datetime.now(UTC) - SPREAD
        self._rows = 0
        self._events, self._batches = bodies.events(), bodies.batches()
        self._checks = bodies.checks(LIMITED)

    async def post(self, body: bytes) -> None:
        headers = {
            b"authorization": f"Bearer {servers.ADMIN_KEY}".encode(),
            b"content-type": b"application/json",
        }
        request = LeanRequest(headers, "backfill=true", _receiver(body), None, "/v1/events")
        answer = await self._runtime.events(request)
        if answer.status not in (200, 201):
            raise RuntimeError(f"{answer.status}: {answer.body[:300]!r}")

    async def check(self) -> None:
        headers = {
            b"authorization": f"Bearer {servers.ADMIN_KEY}".encode(),
            b"content-type": b"application/json",
        }
        request = LeanRequest(headers, "", _receiver(self._checks()), None, "/v1/limits/check")
        answer = await self._runtime.check(request)
        if b'"allowed":true' not in answer.body:
            raise RuntimeError(f"{answer.status}: {answer.body[:300]!r}")

    def _older(self, user: str | None = None) -> dict[str, Any]:
        """An event of the last thirty days; the further the log has grown, the later it was."""
        pick = self._pick
        model = pick.choice(bodies.MODELS)
        at = self._began + SPREAD * (self._rows / (self._final * 1.05 + SLICE * 8))
        self._rows += 1
        return {
            "id": self._next_id().decode(),
            "user_id": user or bodies.user(pick.randrange(bodies.USERS)),
            "timestamp": rfc3339(at),
            "provider": model.provider,
            "model": model.name,
            "usage": {
                "input_tokens": pick.randint(200, 12_000),
                "output_tokens": pick.randint(20, 1_500),
            },
            "endpoint": model.endpoint,
            "status_code": 429 if pick.random() < 0.02 else 200,
            "latency_ms": pick.randint(150, 8_000),
        }

    async def fill(self, rows: int, tell: Callable[[int], None], user: str | None = None) -> None:
        """Let the log grow by so many rows, through the door, several batches in flight."""
        left = rows

        async def filler() -> None:
            nonlocal left
            while left > 0:
                count = min(BATCH, left)
                left -= count
                await self.post(json.dumps([self._older(user) for _ in range(count)]).encode())
                tell(count)

        await asyncio.gather(*(filler() for _ in range(FILLERS)))

    # ---- what is measured ----

    async def single(self, seconds: float) -> Figure:
        done = await _within(seconds, CALLERS, lambda: self.post(self._events()))
        return Figure(done, "/s", True)

    async def batch(self, seconds: float) -> Figure:
        done = await _within(seconds, FILLERS, lambda: self.post(self._batches()))
        return Figure(done * bodies.BATCH, "events/s", True)

    async def checks(self, seconds: float) -> Figure:
        return Figure(await _within(seconds, CALLERS, self.check), "/s", True)

    async def usage(self, seconds: float) -> Figure:
        clock = self._runtime.clock
        return await self._read(
            seconds, lambda tx, user: read_usage(tx, user, None, clock), self._runtime.db
        )

    async def trends(self, seconds: float) -> Figure:
        now = self._runtime.clock.now()
        return await self._read(
            seconds, lambda tx, user: read_trends(tx, user, 6, now), self._runtime.db
        )

    async def query(self, seconds: float) -> Figure:
        end = hour_of(self._runtime.clock.now()) + timedelta(hours=1)
        question = Question(Span(end - SPREAD, end), "day", QUESTION, {})
        return await self._read(seconds, lambda tx, _: ask(tx, question), self._runtime.db)

    async def _read(
        self, seconds: float, read: Callable[[Any, str], Awaitable[Any]], db: Database
    ) -> Figure:
        took = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or len(took) < 5:
            user = bodies.user(self._pick.randrange(READ_USERS))
            began = time.perf_counter()
            await db.read(lambda tx, user=user: read(tx, user), within_s=60)  # type: ignore[misc]
            took.append((time.perf_counter() - began) * 1000)
        return Figure(median(took), "ms", False)

    async def wrap(self, size: int) -> Figure:
        """A user of their own is wrapped down to the newest few rows."""
        user = f"slice-{size}"
        await self.fill(SLICE + 10, lambda _: None, user)
        parts = self._runtime.wrap._replace(by_default=Policy(11, 10, None))
        began = time.perf_counter()
        (result,) = await wrap(parts, [user], wait_s=10)
        took = time.perf_counter() - began
        if result.wrapped_events != SLICE:
            raise RuntimeError(f"{result.wrapped_events} rows were wrapped instead of {SLICE}")
        return Figure(SLICE / took, "rows/s", True)


def _receiver(body: bytes) -> Callable[[], Awaitable[Any]]:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _within(seconds: float, callers: int, act: Callable[[], Awaitable[None]]) -> float:
    """How often a second it is done by so many callers at once."""
    done = 0
    began = time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await act()
            done += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (time.perf_counter() - began)


# ---- one engine -------------------------------------------------------------------------------


@asynccontextmanager
async def at_work(url: str, archives: Path) -> AsyncIterator[Runtime]:
    """A service's parts on an empty database, with the packaged prices."""
    settings = Settings(database_url=url, admin_key=servers.ADMIN_KEY, archive_url=str(archives))
    await upgrade(url)
    db = Database.open(url, pool_size=4)
    await take_packaged_prices(db, Clock())
    await db.close()
    runtime = build(settings)
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.close()


async def grow(
    url: str, engine: str, folder: Path, options: argparse.Namespace, progress: Progress
) -> Grown:
    """Fill the database to each size, as far as there is time, and measure at each."""
    async with at_work(url, folder / f"archives-{engine}") as runtime:
        await _give_limits(runtime)
        return await _grown(runtime, engine, options, progress)


async def _grown(
    runtime: Runtime, engine: str, options: argparse.Namespace, progress: Progress
) -> Grown:
    sizes: list[int] = options.sizes
    garden, found = Garden(runtime, sizes[-1]), Grown(engine, [], {}, [])
    stop = time.perf_counter() + options.minutes * 60
    rows = 0
    task = progress.add_task(f"{engine}: filling", total=sizes[-1])
    for size in sizes:
        if found.filled_s and found.filled_s[-1] * (size - rows) > stop - time.perf_counter():
            break
        began, missing = time.perf_counter(), size - rows
        progress.update(task, description=f"{engine}: filling to {size:,}")
        await garden.fill(missing, lambda count: progress.advance(task, count))
        found.filled_s.append((time.perf_counter() - began) / missing)
        rows = size
        await _measure(
            garden,
            found,
            size,
            options,
            lambda what: progress.update(
                task,
                description=f"{engine}: {what} at {size:,}",  # noqa: B023
            ),
        )
        found.sizes.append(size)
    progress.remove_task(task)
    return found


async def _measure(
    garden: Garden,
    found: Grown,
    size: int,
    options: argparse.Namespace,
    tell: Callable[[str], None],
) -> None:
    measures: dict[str, Callable[[float], Awaitable[Figure]]] = {
        "single events": garden.single,
        "batches of 1,000": garden.batch,
        "limit checks": garden.checks,
        "usage": garden.usage,
        "usage/trends": garden.trends,
        "analytics/query": garden.query,
    }
    for name, measure in measures.items():
        tell(name)
        await measure(0.2)  # what is met for the first time is not what is asked
        passes = [await measure(options.seconds) for _ in range(options.passes)]
        value = median(one.value for one in passes)
        found.figures.setdefault(name, []).append(passes[0]._replace(value=value))
    tell("wrap")
    found.figures.setdefault(f"wrap {SLICE:,} rows", []).append(await garden.wrap(size))


async def _give_limits(runtime: Runtime) -> None:
    transport = httpx.ASGITransport(create_asgi(runtime))
    headers = {"Authorization": f"Bearer {servers.ADMIN_KEY}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://bench", headers=headers
    ) as http:
        for number in range(LIMITED):
            for limit in bodies.limits(bodies.user(number)):
                answer = await http.post("/v1/limits", json=limit)
                if answer.status_code != 201:
                    raise RuntimeError(f"POST /v1/limits: {answer.status_code} {answer.text}")


# ---- the command ------------------------------------------------------------------------------


def table(grown: Grown) -> Table:
    """Each size with what it measured and its ratio to the first."""
    shown = Table(title=f"{grown.engine}: the same work while the log grows")
    shown.add_column("work")
    for size in grown.sizes:
        shown.add_column(f"{size:,} rows", justify="right")
    for name, figures in grown.figures.items():
        cells = []
        for place, figure in enumerate(figures):
            digits = 0 if figure.value >= 100 else 2
            cell = f"{figure.value:,.{digits}f} {figure.unit}"
            cells.append(f"{cell}  {grown.ratio(name, place):.2f}x" if place else cell)
        shown.add_row(name, *cells)
    return shown


def as_json(grown: Grown) -> dict[str, Any]:
    return {
        "engine": grown.engine,
        "sizes": grown.sizes,
        "figures": {
            name: [
                figure._asdict() | {"ratio": grown.ratio(name, place)}
                for place, figure in enumerate(figures)
            ]
            for name, figures in grown.figures.items()
        },
        "fill_seconds_per_row": grown.filled_s,
    }


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    sizes = ",".join(map(str, SIZES))
    parser.add_argument("--sizes", default=sizes, help=f"rows of the log ({sizes})")
    parser.add_argument("--engines", default="sqlite,postgres", help="sqlite, postgres or both")
    parser.add_argument("--minutes", type=float, default=10.0, help="for filling an engine (10)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one pass (2)")
    parser.add_argument("--passes", type=int, default=3, help="passes, of which the median (3)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure to a file")
    parser.add_argument(
        "--postgres", metavar="URL", default=os.environ.get("TEST_POSTGRES_URL") or None
    )
    options = parser.parse_args(given)
    try:
        options.sizes = sorted({int(size.replace("_", "")) for size in options.sizes.split(",")})
    except ValueError:
        parser.error("--sizes: numbers, separated by commas")
    options.engines = [name.strip() for name in options.engines.split(",")]
    if not set(options.engines) <= {"sqlite", "postgres"} or options.sizes[0] < 1:
        parser.error("--engines: sqlite, postgres; --sizes: above 0")
    return options


def main() -> int:
    options = arguments()
    configure("warning", "pretty")
    gc.set_threshold(50_000, 20, 20)  # as the service does
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    found: list[Grown] = []
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-growth-") as name,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        folder = Path(name)
        if on_memory_disk(folder):
            console.print(f"{folder} is in memory: set TMPDIR to a folder on a disk", style="red")
        if "sqlite" in options.engines:
            url = f"sqlite:///{folder / 'growth.db'}"
            found.append(asyncio.run(grow(url, "SQLite", folder, options, progress)))
        if "postgres" in options.engines:
            with servers.postgres(folder, options.postgres) as server:
                url = server.new_database()
                found.append(asyncio.run(grow(url, "PostgreSQL", folder, options, progress)))
    for grown in found:
        console.print(table(grown))
        left = [f"{size:,}" for size in options.sizes if size not in grown.sizes]
        if left:
            console.print(f"{grown.engine}: no time for {', '.join(left)}; give it more --minutes")
    if options.json:
        report = {"machine": machine(), "grown": [as_json(grown) for grown in found]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
