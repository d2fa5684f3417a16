"""The rows of the table. Each starts what it measures, takes turns, and stops it again."""

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from benchmarks import bare, bodies, servers, telemetry
from benchmarks.compare import Row, Target, not_measured, problems_of
from benchmarks.load import Load, Measured, answered, drive, recorded_many, recorded_one

Engine = Literal["sqlite", "postgres"]
ENGINE_TITLES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
BATCH_CONNECTIONS = 4
STARTS = 3
SETTLE_S = 2.0


class Effort(NamedTuple):
    """How long and how often each side is measured."""

    seconds: float = 3.0
    warmup_s: float = 0.5
    pairs: int = 5
    limited_users: int = 200
    pinned: bool = True


SMOKE = Effort(seconds=0.4, warmup_s=0.1, pairs=1, limited_users=20, pinned=False)


class Lane(NamedTuple):
    """One of the things that take turns."""

    name: str
    server: servers.Server
    load: Load


@dataclass
class Bench:
    """What the rows share: CPUs, a folder, two helper processes and a PostgreSQL."""

    effort: Effort
    folder: Path
    postgres_url: str | None
    step: Callable[[str], None]
    """Called before each measured piece of work with a few words on what it is."""
    stack: ExitStack = field(default_factory=ExitStack)
    _noop: servers.Server | None = None
    _postgres: servers.Postgres | None = None

    def __post_init__(self) -> None:
        self.server_cpu, self.load_cpu = servers.cpus() if self.effort.pinned else (None, None)
        self._loader = self._helper(self.load_cpu)
        self._inserter = self._helper(self.server_cpu)

    def _helper(self, cpu: int | None) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        helper = ProcessPoolExecutor(1, spawn, initializer=servers.pin, initargs=(cpu,))
        return self.stack.enter_context(helper)

    def drive(self, load: Load, server: servers.Server) -> Measured:
        cpu_s, started = server.cpu_seconds(), time.perf_counter()
        measured = self._loader.submit(drive, load).result()
        cpu_s, wall_s = server.cpu_seconds() - cpu_s, time.perf_counter() - started
        return measured._replace(server_cpu=cpu_s / wall_s)

    def insert(self, engine: Engine, url: str, after_id: str) -> bare.Inserted:
        if engine == "postgres":
            return self._inserter.submit(bare.copy_into_postgres, url, after_id).result()
        source = _file_of(url)
        twin = source.with_suffix(".bare.db")
        return self._inserter.submit(bare.insert_into_sqlite, source, twin, after_id).result()

    def new_database(self, engine: Engine, name: str) -> str:
        if engine == "sqlite":
            taken = len(list(self.folder.glob(f"{name}-*.db")))
            return f"sqlite:///{self.folder / f'{name}-{taken}.db'}"
        if self._postgres is None:
            context = servers.postgres(self.folder, self.postgres_url)
            self._postgres = self.stack.enter_context(context)
        return self._postgres.new_database()

    def noop(self) -> servers.Server:
        """The one no-op server, which rests while others are measured."""
        if self._noop is None:
            context = servers.noop(self.folder, self.server_cpu)
            self._noop = self.stack.enter_context(context)
        return self._noop

    def load(
        self,
        server: servers.Server,
        path: str,
        make: Callable[[], bodies.MakeBody],
        accept: Callable[[int, bytes], int],
        connections: int = 64,
    ) -> Load:
        effort = self.effort
        return Load(
            port=server.port,
            path=path,
            key=servers.ADMIN_KEY,
            make=make,
            accept=accept,
            connections=connections,
            warmup_s=effort.warmup_s,
            seconds=effort.seconds,
        )

    def take_turns(self, title: str, lanes: Sequence[Lane]) -> dict[str, list[Measured]]:
        """A B C A B C …: what is slow for a while is slow for all of them."""
        found: dict[str, list[Measured]] = {lane.name: [] for lane in lanes}
        for _ in range(self.effort.pairs):
            for lane in lanes:
                self.step(f"{title}: {lane.name}")
                found[lane.name].append(self.drive(lane.load, lane.server))
        return found


def _file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def _rates(passes: Sequence[Measured]) -> list[float]:
    return [each.per_second for each in passes]


def _notes(passes: Sequence[Measured]) -> dict[str, object]:
    return {
        "p50_ms": median(each.p50_ms for each in passes),
        "p99_ms": median(each.p99_ms for each in passes),
        "client_cpu": median(each.client_cpu for each in passes),
        "server_cpu": median(each.server_cpu for each in passes),
    }


def _ratio_per_cpu_second(subject: Sequence[Measured], baseline: Sequence[Measured]) -> float:
    """The ratio of requests per CPU second of the server; other work on the CPU is not in it."""
    pairs = zip(subject, baseline, strict=True)
    ratios = [
        (ours.per_second / ours.server_cpu) / (theirs.per_second / theirs.server_cpu)
        for ours, theirs in pairs
        if ours.server_cpu and theirs.server_cpu and theirs.per_second
    ]
    return median(ratios) if ratios else 0.0


def _words(server: servers.Server, passes: Sequence[Measured]) -> list[str]:
    """What the server logged, where it gave answers that it should not have."""
    words = server.last_words() if any(each.errors for each in passes) else ""
    return [f"its log ends with\n{words}"] if words else []


def _lost_or_doubled(engine: Engine, url: str, acknowledged: int) -> list[str]:
    """What was acknowledged must be in the log, once each, and nothing else."""
    stored = (
        bare.count_in_sqlite(_file_of(url)) if engine == "sqlite" else bare.count_in_postgres(url)
    )
    if stored == acknowledged:
        return []
    return [f"{acknowledged} events acknowledged, {stored} rows in the log"]


def _against(
    name: str,
    title: str,
    target: Target,
    subject: Sequence[Measured],
    versus: str,
    baseline: Sequence[Measured],
    problems: Sequence[str] = (),
) -> Row:
    return Row(
        name=name,
        title=title,
        unit="req/s",
        subject=_rates(subject),
        versus=versus,
        baseline=_rates(baseline),
        target=target,
        notes={
            **_notes(subject),
            versus: _notes(baseline),
            "ratio_per_cpu_second": _ratio_per_cpu_second(subject, baseline),
        },
        problems=(*problems_of("Tollgate", subject), *problems_of(versus, baseline), *problems),
    )


SINGLE_TARGETS: dict[Engine, Target] = {
    "sqlite": Target("ratio", at_least=2.0),
    "postgres": Target("ratio", at_least=1.8),
}
CLASSIC_TARGET = Target("ratio", at_least=40)
BATCH_TARGETS: dict[Engine, Target] = {
    "sqlite": Target("ratio", at_least=0.4),
    "postgres": Target("ratio", at_least=0.35),
}
HOLD_TARGETS: dict[Engine, Target] = {
    "sqlite": Target("ratio", at_least=1.0),
    "postgres": Target("ratio", at_least=1.0),
}
CHECK_TARGETS: dict[Engine, Target] = {
    "sqlite": Target("ratio", at_least=1.8),
    "postgres": Target("ratio", at_least=1.0),
}


def single(bench: Bench, engine: Engine) -> Iterator[Row]:
    """One event per request, 64 callers: against doing nothing, and against the usual way."""
    title = f"one event, 64 connections, {ENGINE_TITLES[engine]}"
    url = bench.new_database(engine, "single")
    classic_url = bench.new_database(engine, "classic")
    noop = bench.noop()
    with (
        servers.tollgate(bench.folder, bench.server_cpu, url) as tollgate,
        servers.classic(bench.folder, bench.server_cpu, classic_url) as classic,
    ):
        path = "/v1/events"
        found = bench.take_turns(
            title,
            [
                Lane("no-op", noop, bench.load(noop, path, bodies.events, recorded_one)),
                Lane("Tollgate", tollgate, bench.load(tollgate, path, bodies.events, recorded_one)),
                Lane("classic", classic, bench.load(classic, path, bodies.events, recorded_one)),
            ],
        )
        ours = found["Tollgate"]
        problems = _lost_or_doubled(engine, url, sum(each.done for each in ours))
        problems += _words(tollgate, ours)
    name, target = f"single-{engine}", SINGLE_TARGETS[engine]
    yield _against(name, title, target, ours, "no-op", found["no-op"], problems)
    yield _against(
        f"classic-{engine}",
        f"{title}, vs classic",
        CLASSIC_TARGET,
        ours,
        "classic",
        found["classic"],
    )


def batch(bench: Bench, engine: Engine) -> Iterator[Row]:
    """A thousand events per request over HTTP, against a bare bulk insert of the same rows."""
    title = f"batches of 1,000, {BATCH_CONNECTIONS} connections, {ENGINE_TITLES[engine]}"
    versus = "executemany" if engine == "sqlite" else "COPY"
    url = bench.new_database(engine, "batch")
    subject: list[Measured] = []
    baseline: list[bare.Inserted] = []
    with servers.tollgate(bench.folder, bench.server_cpu, url) as tollgate:
        load = bench.load(tollgate, "/v1/events", bodies.batches, recorded_many, BATCH_CONNECTIONS)
        last_id = ""
        for _ in range(bench.effort.pairs):
            bench.step(f"{title}: Tollgate")
            subject.append(bench.drive(load, tollgate))
            bench.step(f"{title}: {versus}")
            baseline.append(bench.insert(engine, url, last_id))
            last_id = baseline[-1].last_id
        problems = _lost_or_doubled(engine, url, sum(each.done for each in subject))
        problems += _words(tollgate, subject)
    yield Row(
        name=f"batch-{engine}",
        title=title,
        unit="rows/s",
        subject=_rates(subject),
        versus=versus,
        baseline=[each.per_second for each in baseline],
        target=BATCH_TARGETS[engine],
        notes={**_notes(subject), "rows": sum(each.rows for each in baseline)},
        problems=(*problems_of("Tollgate", subject), *problems),
    )


OTLP_TARGET = Target("value", at_least=200)


def otlp(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Model calls told by OpenTelemetry: spans per second, by how many come in one request."""
    url = bench.new_database(engine, "otlp")
    with servers.tollgate(bench.folder, bench.server_cpu, url) as tollgate:
        for size in telemetry.SIZES:
            spans = "span" if size == 1 else "spans"
            title = f"OTLP, {size:,} {spans} a request, {ENGINE_TITLES[engine]}"
            accept = partial(telemetry.accepted, size)
            connections = 64 if size == 1 else BATCH_CONNECTIONS
            load = bench.load(tollgate, "/v1/traces", telemetry.maker(size), accept, connections)
            subject: list[Measured] = []
            for _ in range(bench.effort.pairs):
                bench.step(title)
                subject.append(bench.drive(load, tollgate))
            yield Row(
                name=f"otlp-{size}-{engine}",
                title=title,
                unit="spans/s",
                subject=_rates(subject),
                target=OTLP_TARGET,
                notes=_notes(subject),
                problems=(*problems_of("Tollgate", subject), *_words(tollgate, subject)),
            )


def _give_limits(bench: Bench, server: servers.Server) -> list[str]:
    """Two limits for each asked user, and a first batch of usage under them."""
    for number in range(bench.effort.limited_users):
        for limit in bodies.limits(bodies.user(number)):
            status, answer = servers.request(server.port, "POST", "/v1/limits", body=limit)
            if status != 201:
                return [f"POST /v1/limits: {status} {answer[:300].decode(errors='replace')}"]
    load = bench.load(server, "/v1/events", bodies.batches, recorded_many, BATCH_CONNECTIONS)
    used = bench.drive(load._replace(warmup_s=0.0, seconds=min(0.3, load.seconds)), server)
    question = json.loads(bodies.checks(bench.effort.limited_users)())
    status, answer = servers.request(server.port, "POST", "/v1/limits/check", body=question)
    problems = problems_of("Tollgate, filling", [used])
    if status != 200 or len(json.loads(answer).get("limits", ())) < 2:
        problems.append(f"limits/check: {status} {answer[:300].decode(errors='replace')}")
    return [*problems, *_words(server, [used])]


def allowed(status: int, body: bytes) -> int:
    return int(status == 200 and b'"allowed":true' in body)


def check(bench: Bench, engine: Engine) -> Iterator[Row]:
    """May this user make this call? 64 callers, users with two limits each."""
    title = f"limit check, 64 connections, {ENGINE_TITLES[engine]}"
    url = bench.new_database(engine, "check")
    noop = bench.noop()
    with servers.tollgate(bench.folder, bench.server_cpu, url) as tollgate:
        problems = _give_limits(bench, tollgate)
        path, make = "/v1/limits/check", partial(bodies.checks, bench.effort.limited_users)
        found = bench.take_turns(
            title,
            [
                Lane("no-op", noop, bench.load(noop, path, make, answered)),
                Lane("Tollgate", tollgate, bench.load(tollgate, path, make, allowed)),
            ],
        )
        problems += _words(tollgate, found["Tollgate"])
    name, target = f"check-{engine}", CHECK_TARGETS[engine]
    yield _against(name, title, target, found["Tollgate"], "no-op", found["no-op"], problems)


def hold(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Reserve before a call: 64 callers, all on one counter; what is held is read at the end.

    The limit is then narrowed and run into: not one token too many is held.
    """
    title = f"holds on one hot key, 64 connections, {ENGINE_TITLES[engine]}"
    url = bench.new_database(engine, "hold")
    noop = bench.noop()
    with servers.tollgate(bench.folder, bench.server_cpu, url) as tollgate:
        wide = bodies.hot_limit(10**15)
        status, answer = servers.request(tollgate.port, "POST", "/v1/limits", body=wide)
        problems = [] if status == 201 else [f"POST /v1/limits: {status} {answer[:300]!r}"]
        path, make = "/v1/holds", bodies.holds
        found = bench.take_turns(
            title,
            [
                Lane("no-op", noop, bench.load(noop, path, make, answered)),
                Lane("Tollgate", tollgate, bench.load(tollgate, path, make, recorded_one)),
            ],
        )
        ours = found["Tollgate"]
        held = sum(each.done for each in ours) * bodies.HOLD_TOKENS
        problems += _overshoot(tollgate, held, held)
        amount = held + HELD_AT_LAST * bodies.HOLD_TOKENS + bodies.HOLD_TOKENS // 2
        limit_id = json.loads(answer)["id"] if status == 201 else "none"
        narrow = {"amount": amount}
        servers.request(tollgate.port, "PATCH", f"/v1/limits/{limit_id}", body=narrow)
        load = bench.load(tollgate, path, make, granted_or_denied)
        bench.drive(load._replace(warmup_s=0.0, seconds=min(0.5, load.seconds)), tollgate)
        full = held + HELD_AT_LAST * bodies.HOLD_TOKENS
        problems += _overshoot(tollgate, full, amount)
        problems += _words(tollgate, ours)
    name, target = f"hold-{engine}", HOLD_TARGETS[engine]
    yield _against(name, title, target, ours, "no-op", found["no-op"], problems)


HELD_AT_LAST = 50
"""How many more holds fit when the limit is narrowed; every caller has tried by then."""


def granted_or_denied(status: int, body: bytes) -> int:
    return int(status in (201, 429))


def _overshoot(server: servers.Server, expected: int, amount: int) -> list[str]:
    """What is held must be what was granted, and never more than the limit."""
    path = f"/v1/users/{bodies.user(0)}/limits"
    _, answer = servers.request(server.port, "GET", path)
    held = json.loads(answer)["items"][0]["held"]
    if held > amount:
        return [f"{held - amount} tokens held beyond the limit"]
    return [] if held == expected else [f"{held} tokens held, {expected} granted"]


def price(bench: Bench) -> Iterator[Row]:
    """One warm event priced, and the catalogue compiled, in a fresh process."""
    title = "price one warm event"
    bench.step(title)
    effort = bench.effort
    command = [sys.executable, "-m", "benchmarks.price"]
    done = subprocess.run(
        [*command, str(min(effort.seconds, 0.5)), str(effort.pairs)],
        cwd=servers.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=None if bench.server_cpu is None else lambda: servers.pin(bench.server_cpu),
    )
    if done.returncode:
        raise servers.NotReady(f"{' '.join(command)}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    yield Row(
        name="price",
        title=title,
        unit="µs",
        subject=found["quote_us"],
        versus="genai-prices",
        baseline=found["calc_price_us"],
        faster_is="less",
        target=Target("value", at_most=2.0),
        problems=[f"{model} has no price" for model in found["unpriced"]],
    )
    yield Row(
        name="catalogue",
        title="compile the price catalogue",
        unit="s",
        subject=[found["compiled_s"]],
        target=Target("value", at_most=1.0),
    )


def start(bench: Bench) -> Iterator[Row]:
    """From the command to ready on a new SQLite file; then what it holds and what it said."""
    ready, peer_ready, rss, peer_rss, lines = [], [], [], [], []
    for _ in range(min(STARTS, bench.effort.pairs)):
        bench.step("start: no-op")
        with servers.noop(bench.folder, bench.server_cpu) as noop:
            peer_ready.append(noop.ready_after_s)
            peer_rss.append(noop.rss_bytes() / 2**20)
        bench.step("start: Tollgate")
        url = bench.new_database("sqlite", "start")
        with servers.tollgate(bench.folder, bench.server_cpu, url, log_level=None) as tollgate:
            ready.append(tollgate.ready_after_s)
            time.sleep(min(SETTLE_S, bench.effort.seconds))
            rss.append(tollgate.rss_bytes() / 2**20)
            lines.append(float(tollgate.log_lines()))
    yield Row(
        name="start",
        title="start on a new SQLite file until ready",
        unit="s",
        subject=ready,
        versus="no-op",
        baseline=peer_ready,
        faster_is="less",
        target=Target("value", at_most=2.0),
    )
    yield Row(
        name="memory",
        title="resident memory when idle",
        unit="MB",
        subject=rss,
        versus="no-op",
        baseline=peer_rss,
        faster_is="less",
        target=Target("value", at_most=120),
    )
    yield Row(
        name="log-lines",
        title="log lines at start",
        unit="lines",
        subject=lines,
        target=Target("value", at_most=20),
    )


class Group(NamedTuple):
    """Rows that are measured together under one name on the command line."""

    name: str
    measure: Callable[[Bench], Iterator[Row]]
    steps: Callable[[Effort], int]
    target: Target


GROUPS = (
    Group(
        "single-sqlite",
        lambda bench: single(bench, "sqlite"),
        lambda effort: 3 * effort.pairs,
        SINGLE_TARGETS["sqlite"],
    ),
    Group(
        "single-postgres",
        lambda bench: single(bench, "postgres"),
        lambda effort: 3 * effort.pairs,
        SINGLE_TARGETS["postgres"],
    ),
    Group(
        "batch-sqlite",
        lambda bench: batch(bench, "sqlite"),
        lambda effort: 2 * effort.pairs,
        BATCH_TARGETS["sqlite"],
    ),
    Group(
        "batch-postgres",
        lambda bench: batch(bench, "postgres"),
        lambda effort: 2 * effort.pairs,
        BATCH_TARGETS["postgres"],
    ),
    Group(
        "hold-sqlite",
        lambda bench: hold(bench, "sqlite"),
        lambda effort: 2 * effort.pairs,
        HOLD_TARGETS["sqlite"],
    ),
    Group(
        "hold-postgres",
        lambda bench: hold(bench, "postgres"),
        lambda effort: 2 * effort.pairs,
        HOLD_TARGETS["postgres"],
    ),
    Group(
        "check-sqlite",
        lambda bench: check(bench, "sqlite"),
        lambda effort: 2 * effort.pairs,
        CHECK_TARGETS["sqlite"],
    ),
    Group(
        "check-postgres",
        lambda bench: check(bench, "postgres"),
        lambda effort: 2 * effort.pairs,
        CHECK_TARGETS["postgres"],
    ),
    Group(
        "otlp-sqlite",
        lambda bench: otlp(bench, "sqlite"),
        lambda effort: len(telemetry.SIZES) * effort.pairs,
        OTLP_TARGET,
    ),
    Group(
        "otlp-postgres",
        lambda bench: otlp(bench, "postgres"),
        lambda effort: len(telemetry.SIZES) * effort.pairs,
        OTLP_TARGET,
    ),
    Group("price", price, lambda effort: 1, Target("value", at_most=2.0)),
    Group(
        "start", start, lambda effort: 2 * min(STARTS, effort.pairs), Target("value", at_most=2.0)
    ),
)


def measure(bench: Bench, group: Group) -> list[Row]:
    """The group's rows; if it cannot be measured, one row that says why."""
    try:
        return list(group.measure(bench))
    except Exception as error:  # one broken row must not hide the others
        reason = f"{type(error).__name__}: {error}"
        return [not_measured(group.name, group.name, group.target, reason)]


@contextmanager
def opened(
    effort: Effort, folder: Path, postgres_url: str | None, step: Callable[[str], None]
) -> Iterator[Bench]:
    bench = Bench(effort, folder, postgres_url, step)
    with bench.stack:
        yield bench
