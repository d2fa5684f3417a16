"""Every figure that a process keeps of its own work. Labels come from fixed, short lists."""

import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from app.core.clock import Clock
from app.metrics import names
from app.metrics.kinds import Counts, Family, Level, Row, Snapshot, Spread
from app.metrics.traces import QUIET, Facts, Traces

Note = tuple[str, tuple[str, ...], int]
"""What a transaction counts if it is committed: a counter's name, its labels, how much."""

NANOS_PER_USD = 1_000_000_000
MILLIS = 1_000
REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
COMMIT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 10_000)
JOB_S = (0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 1800)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
_NONE: Mapping[bytes, bytes] = {}
_PROC = Path("/proc/self")


class Figures:
    """What this process has done since it started, and where it stands.

    Used from the event loop alone.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self.now_s = self._clock.monotonic_s
        self.traces: Traces | None = None
        self.events = Counts(
            "tollgate_events",
            "Events by the door they came through and by what became of them.",
            ("door", "outcome"),
        )
        self.calls = Counts(
            names.CALLS, "Calls recorded; an event may bill several.", ("provider",)
        )
        self.failed_calls = Counts(
            names.FAILED_CALLS, "Calls recorded with a status of 400 or more.", ("provider",)
        )
        self.unpriced_calls = Counts(
            names.UNPRICED_CALLS, "Calls recorded without a known price.", ("provider",)
        )
        self.cost = Counts(
            names.COST,
            "US dollars of the calls when they were recorded; corrections do not move it.",
            ("provider",),
            per=NANOS_PER_USD,
        )
        self.tokens = Counts(
            names.TOKENS,
            "Tokens recorded; input and output contain the kinds that are part of them.",
            ("provider", "kind"),
        )
        self.batches = Spread(
            "tollgate_batch_events",
            "Calls and holds that shared one transaction.",
            BATCH,
            ("intake",),
        )
        self.commits = Spread(
            "tollgate_commit_seconds",
            "One transaction of an intake, from its begin until it was durable.",
            COMMIT_S,
            ("intake",),
        )
        self.intake_refused = Counts(
            "tollgate_intake_refused",
            "Requests of which nothing was recorded for the service's sake (503).",
            ("why",),
        )
        self.requests = Spread(
            "tollgate_request_seconds",
            "Requests by the template of their route and the class of their status.",
            REQUEST_S,
            ("method", "route", "status"),
        )
        self.checks = Counts("tollgate_checks", "Limit checks answered.", ("verdict",))
        self.holds = Counts(names.HOLDS, "Holds asked for, and what ended them.", ("outcome",))
        self.alerts = Counts(names.ALERTS, "Alerts raised.", ("severity",))
        self.webhooks = Counts(names.WEBHOOKS, "Attempts to deliver a message.", ("outcome",))
        self.job_runs = Counts(
            "tollgate_job_runs", "Jobs that did something, or failed.", ("name", "outcome")
        )
        self.job_seconds = Spread(
            "tollgate_job_seconds", "How long a job that was due took.", JOB_S, ("name",)
        )
        self.wrapped = Counts(names.WRAPPED, "Events moved from the log to archives.")
        self.archived = Counts(names.ARCHIVED, "Archives written and sealed.")
        self.foreign = Counts(
            "tollgate_foreign",
            "What became of what other programs sent; `drift` is a stated cost far from ours.",
            ("source", "what"),
        )
        self.consistent = Level(
            "tollgate_consistent",
            "1 if the last proof over HTTP found that all books agree, 0 if not.",
            joined="latest",
        )
        self.differences = Level(
            "tollgate_consistency_differences",
            "How many values the last proof found to differ.",
            joined="latest",
        )
        self.proved = Level(
            "tollgate_consistency_checked_timestamp_seconds",
            "When the last proof was made.",
            joined="latest",
        )
        self.queued = Level(
            "tollgate_intake_queued_calls", "Calls and holds that wait.", ("intake",)
        )
        self.config_version = Level(
            "tollgate_config_version",
            "The last change of configuration that every worker has seen.",
            joined="min",
        )
        self.workers = Level("tollgate_workers", "Processes that serve together.")
        self.build = Level(
            "tollgate_build_info", "1, with the version.", ("version", "database"), "max"
        )
        self.cpu = Counts(
            "process_cpu_seconds", "Processor time used, user and system.", per=MILLIS
        )
        self.memory = Level("process_resident_memory_bytes", "Resident memory of all workers.")
        self.files = Level("process_open_fds", "Open files of all workers.")
        self.started = Level(
            "process_start_time_seconds", "When the oldest worker started.", joined="min"
        )
        self.families: tuple[Family, ...] = tuple(
            one for one in vars(self).values() if isinstance(one, Counts | Spread | Level)
        )
        self._counts = {one.name: one for one in self.families if isinstance(one, Counts)}
        self.workers.set(1)
        self.started.set(self._clock.now().timestamp())

    def hear(self, notes: Iterable[Note]) -> None:
        """Count what a transaction noted, now that it is durable."""
        for name, labels, by in notes:
            self._counts[name].values[labels] += by

    def request(
        self,
        method: str,
        route: str | None,
        status: int,
        began_s: float,
        headers: Mapping[bytes, bytes] = _NONE,
    ) -> None:
        """Note a request that has been answered; no `route` where no route matched."""
        if method not in METHODS:
            method = "other"
        labels = (method, route or "none", _CLASSES[status // 100])
        took_s = self.now_s() - began_s
        if self.traces is not None:
            self._trace_request(labels, status, took_s, headers.get(b"traceparent", b""))
        row = self.requests.values.get(labels)
        if row is None:
            self.requests.add(took_s, *labels)
            return
        row[bisect_left(REQUEST_S, took_s)] += 1  # as `add`, 0.1 us less
        row[-1] += took_s

    def _trace_request(
        self, labels: tuple[str, str, str], status: int, took_s: float, parent: bytes
    ) -> None:
        if self.traces is None or labels[1] in QUIET:
            return
        method, route = labels[:2]
        facts: Facts = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        }
        failed, caller = status >= 500, parent.decode("latin-1")
        self.traces.span(f"{method} {route}", took_s, facts, failed=failed, parent=caller)

    def batch(self, intake: str, size: int, began_s: float) -> None:
        """Note a transaction that is durable by now."""
        took_s = self.now_s() - began_s
        self.batches.add(size, intake)
        self.commits.add(took_s, intake)
        if self.traces is not None:
            facts: Facts = {"tollgate.intake": intake, "tollgate.batch.events": size}
            self.traces.span("intake batch", took_s, facts)

    def proof(self, consistent: bool, differing: int) -> None:
        """Note what a proof found."""
        at_s = self._clock.now().timestamp()
        self.consistent.set(float(consistent), at_s=at_s)
        self.differences.set(differing, at_s=at_s)
        self.proved.set(at_s, at_s=at_s)

    def job(self, name: str, began_s: float, *, failed: bool) -> None:
        """Note that a job was done, or failed."""
        self.job_runs.add(name, "failed" if failed else "done")
        took_s = self.now_s() - began_s
        self.job_seconds.add(took_s, name)
        if self.traces is not None:
            self.traces.span(f"job {name}", took_s, {"tollgate.job": name}, failed=failed)

    def snapshot(self) -> Snapshot:
        """Everything as it stands, copied."""
        self._look_at_process()
        found: Snapshot = {}
        for family in self.families:
            if isinstance(family, Level):
                found[family.name] = [Row(*one) for one in family.now().items()]
            elif isinstance(family, Spread):
                found[family.name] = [Row(key, [*row]) for key, row in family.values.items()]
            else:
                found[family.name] = [Row(*one) for one in family.values.items()]
        return found

    def _look_at_process(self) -> None:
        times = os.times()
        self.cpu.values[()] = round((times.user + times.system) * MILLIS)
        with suppress(OSError, ValueError, IndexError):  # only Linux tells
            pages = int((_PROC / "statm").read_text().split()[1])
            self.memory.set(pages * os.sysconf("SC_PAGE_SIZE"))
            self.files.set(len(os.listdir(_PROC / "fd")))
