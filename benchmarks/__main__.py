"""`python -m benchmarks`: measure, and print one table."""

import argparse
import json
import os
import platform
import pstats
import shutil
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import bodies, servers
from benchmarks.compare import Row, table
from benchmarks.load import recorded_one
from benchmarks.rows import GROUPS, SMOKE, Effort, Group, measure, opened

BUSY_CLIENT = 0.9
WIDE = 1.5
PROFILE_LINES = 40


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(group.name for group in GROUPS)
    parser.add_argument("--smoke", action="store_true", help="tiny passes; asserts no times")
    parser.add_argument("--only", metavar="NAME,…", help=f"names or their beginnings: {names}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every pass to a file")
    parser.add_argument("--seconds", metavar="N", type=float, help="length of one pass (3)")
    parser.add_argument("--pairs", metavar="N", type=int, help="passes of each side (5)")
    parser.add_argument(
        "--postgres",
        metavar="URL",
        default=os.environ.get("TEST_POSTGRES_URL") or None,
        help="measure on this PostgreSQL instead of a throwaway one (or TEST_POSTGRES_URL)",
    )
    parser.add_argument("--profile", action="store_true", help="profile single-sqlite instead")
    return parser.parse_args()


def chosen(only: str | None) -> list[Group]:
    if not only:
        return list(GROUPS)
    wanted = tuple(name.strip() for name in only.split(",") if name.strip())
    found = [group for group in GROUPS if group.name.startswith(wanted)]
    if not found:
        raise SystemExit(f"no row is called {only}; there are " + ", ".join(g.name for g in GROUPS))
    return found


def machine() -> dict[str, object]:
    return {
        "at": datetime.now(UTC).isoformat(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
    }


def on_memory_disk(folder: Path) -> bool:
    """Whether a commit there only reaches memory, which would flatter everything durable."""
    mounts = {each.mountpoint: each.fstype for each in psutil.disk_partitions(all=True)}
    for parent in (folder, *folder.parents):
        if str(parent) in mounts:
            return mounts[str(parent)] in {"tmpfs", "ramfs"}
    return False


def run(console: Console, groups: list[Group], effort: Effort, postgres: str | None) -> list[Row]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        refresh_per_second=2,
        transient=True,
    )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name, progress:
        folder = Path(name)
        if on_memory_disk(folder):
            console.print(f"{folder} is in memory: set TMPDIR to a folder on a disk", style="red")
        task = progress.add_task("starting", total=sum(group.steps(effort) for group in groups))
        begun = -1

        def step(what: str) -> None:
            nonlocal begun
            begun += 1
            progress.update(task, description=what, completed=begun)

        expected = 0
        with opened(effort, folder, postgres, step) as bench:
            servers.pin(bench.load_cpu)
            for group in groups:
                rows += measure(bench, group)
                expected += group.steps(effort)
                begun = expected - 1
            progress.update(task, description="stopping", completed=expected)
    return rows


def remarks(rows: list[Row]) -> list[str]:
    """What a reader of the table must know: failures, and what makes a ratio doubtful."""
    found = [f"{row.title}: {problem}" for row in rows for problem in row.problems]
    for row in rows:
        busy, per_cpu = row.notes.get("client_cpu"), row.notes.get("ratio_per_cpu_second")
        if isinstance(busy, float) and busy > BUSY_CLIENT:
            found.append(
                f"{row.title}: the load generator was {busy:.0%} busy and may be the limit"
            )
        ratios = row.ratios()
        if row.target.of == "ratio" and len(ratios) > 1 and max(ratios) > WIDE * min(ratios):
            doubt = f"{row.title}: the ratios lie far apart, the machine was busy; run it again"
            known = f" (per CPU second of the server {per_cpu:.2f}x)" if per_cpu else ""
            found.append(doubt + known)
    return found


def profile(console: Console, seconds: float) -> None:
    """One load on the SQLite server under py-spy, or else under cProfile."""
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'profile.db'}"
        effort = Effort(seconds=seconds, warmup_s=1.0, pairs=1)
        py_spy, stats = shutil.which("py-spy"), folder / "profile.stats"
        with opened(effort, folder, None, lambda _: None) as bench:
            where = None if py_spy else stats
            with servers.tollgate(folder, bench.server_cpu, url, profile=where) as server:
                load = bench.load(server, "/v1/events", bodies.events, recorded_one)
                spy = _spy_on(py_spy, server, seconds) if py_spy else None
                measured = bench.drive(load, server)
                if spy is not None:
                    spy.wait()
            console.print(measured)
        if py_spy:
            console.print("flame graph: profile.svg")
        else:
            pstats.Stats(str(stats)).sort_stats("tottime").print_stats(PROFILE_LINES)


def _spy_on(py_spy: str, server: servers.Server, seconds: float) -> subprocess.Popen[bytes]:
    record = [py_spy, "record", "--pid", str(server.process.pid), "--output", "profile.svg"]
    return subprocess.Popen([*record, "--duration", str(max(1, round(seconds)))])


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    effort = SMOKE if options.smoke else Effort()
    if options.seconds:
        effort = effort._replace(seconds=options.seconds)
    if options.pairs:
        effort = effort._replace(pairs=options.pairs)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if options.profile:
        profile(console, options.seconds or 10.0)
        return 0
    rows = run(console, chosen(options.only), effort, options.postgres)
    console.print(table(rows))
    for remark in remarks(rows):
        console.print(remark, style="red", markup=False)
    if options.json:
        report = {
            "machine": machine(),
            "effort": effort._asdict(),
            "rows": [r.as_json() for r in rows],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(row.is_sound() for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
