"""`python -m benchmarks.wraps`: a wrap beside the two bare statements that only add up and delete.

The bare ones keep no archive, no ids and no proof: they are what a wrap costs at the very least.
"""

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import text

from app.db.engine import Database, Tx
from app.retention.policy import Policy
from app.retention.wrap import wrap
from app.web.logs import configure
from benchmarks import servers
from benchmarks.growth import Garden, at_work

WITHIN_S = 600.0
DAY = {"sqlite": "timestamp / 86400000000", "postgresql": "date_trunc('day', timestamp)"}
SUMMED = (
    *("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens"),
    *("output_reasoning_tokens", "requests", "cost_nanos", "latency_us"),
)


async def bare(db: Database, user: str) -> float:
    """Seconds for one `INSERT … SELECT … GROUP BY` and one `DELETE` of all rows of the user."""
    sums = ", ".join(f"sum({name}) AS {name}" for name in SUMMED)
    chosen = (
        f"SELECT user_id, provider, model, endpoint, status_code / 100 AS class, "
        f"{DAY[db.dialect]} AS day, count(*) AS calls, {sums} "
        "FROM usage_events WHERE user_id = :user GROUP BY 1, 2, 3, 4, 5, 6"
    )

    async def ready(tx: Tx) -> None:
        await tx.run(text(f"CREATE TABLE IF NOT EXISTS bare_sums AS {chosen}"), {"user": ""})

    async def work(tx: Tx) -> None:
        await tx.run(text(f"INSERT INTO bare_sums {chosen}"), {"user": user})
        await tx.run(text("DELETE FROM usage_events WHERE user_id = :user"), {"user": user})

    await db.write(ready, within_s=WITHIN_S)
    began = time.perf_counter()
    await db.write(work, within_s=WITHIN_S)
    return time.perf_counter() - began


async def measured(
    url: str, folder: Path, rows: int, pairs: int, progress: Progress
) -> list[tuple[float, float]]:
    """Seconds of each wrap and of the bare statements beside it."""
    async with at_work(url, folder / "archives") as runtime:
        task = progress.add_task(runtime.db.dialect, total=2 * rows * pairs)
        garden, found = Garden(runtime, 2 * rows * pairs), []
        parts = runtime.wrap._replace(by_default=Policy(1, 0, None))
        for place in range(pairs):
            for name in (f"bare-{place}", f"wrap-{place}"):
                await garden.fill(rows, lambda count: progress.advance(task, count), name)
            least = await bare(runtime.db, f"bare-{place}")
            began = time.perf_counter()
            (result,) = await wrap(parts, [f"wrap-{place}"], wait_s=10)
            found.append((time.perf_counter() - began, least))
            if result.wrapped_events != rows:
                raise RuntimeError(f"{result.wrapped_events} rows were wrapped instead of {rows}")
        return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wraps", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of one user (100000)")
    parser.add_argument("--pairs", type=int, default=3, help="passes of each (3)")
    parser.add_argument("--postgres", metavar="URL", default=None)
    return parser.parse_args(given)


def main() -> int:
    options = arguments()
    configure("warning", "pretty")
    gc.set_threshold(50_000, 20, 20)  # as the service does
    console = Console()
    shown = Table(title=f"wrapping {options.rows:,} rows of one user")
    for name in ("engine", "wrap", "bare statements", "ratio (min-max)"):
        shown.add_column(name, justify="left" if name == "engine" else "right")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-wraps-") as name,
        Progress(*columns, console=console, transient=True) as progress,
        servers.postgres(Path(name), options.postgres) as server,
    ):
        folder = Path(name)
        for url in (f"sqlite:///{folder / 'wraps.db'}", server.new_database()):
            found = asyncio.run(measured(url, folder, options.rows, options.pairs, progress))
            ratios = sorted(ours / least for ours, least in found)
            shown.add_row(
                "SQLite" if url.startswith("sqlite") else "PostgreSQL",
                f"{median(ours for ours, _ in found):.2f} s",
                f"{median(least for _, least in found):.2f} s",
                f"{median(ratios):.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})",
            )
    console.print(shown)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
