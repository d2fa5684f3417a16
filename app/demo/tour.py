"""The tour: what is asked of the service, in which order, and what must come of it."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import httpx
import msgspec
from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.core.clock import Clock
from app.demo import show
from app.demo.child import NotStartedError, Service, serving
from app.demo.client import (
    Alerts,
    Audit,
    Batch,
    Check,
    Client,
    Created,
    Estimate,
    Receipt,
    Trends,
    UnexpectedError,
    Usage,
)
from app.demo.replay import ALICE, live, recorded_usages, replayed
from app.ingest.decode import EventIn, UsageIn

BATCH = 500
BUDGET_USD = "18"
THRESHOLDS = [80, 90, 100]
CALLS_A_DAY = 5_000
MANY_LIVE = 600
"""Alice's live calls at most: she has spent 71 % before, and some 130 calls spend the rest."""
BACKFILL = timedelta(days=34)
"""A day less than what is taken without `?backfill=true`, so that no event ages out on its way."""
INTERRUPTED = 130
WIDEST = 100
"""Columns beyond which a table only gets harder to read."""


class Pace(NamedTuple):
    """How many events were recorded, and how long the service took."""

    events: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.events / self.seconds if self.seconds else 0:,.0f} events/s"


def run(console: Console) -> int:
    """Start the service, send it three months of usage and show its answers.

    Returns 0 if everything was as expected, 1 if something differed and 130 if interrupted.
    """
    tour = Tour(console, Clock())
    try:
        with serving() as service, Client(service) as client:
            tour.take(service, client)
    except KeyboardInterrupt:
        console.print("\nInterrupted; the service is stopped and its folder is gone.")
        return INTERRUPTED
    except (NotStartedError, UnexpectedError, httpx.TransportError) as error:
        tour.differed.append(str(error) or type(error).__name__)
    return tour.finish()


class Tour:
    """One tour; what was not as expected gathers in `differed`."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console, self._clock = console, clock
        self._sections = 0
        self._batches, self._singles = Pace(), Pace()
        self.differed: list[str] = []

    def take(self, service: Service, client: Client) -> None:
        """Everything between the start of the service and its end."""
        self._console.print(f"Tollgate runs at {service.address} on a fresh SQLite file.")
        self._set_limits(client)
        events = self._replay(client)
        calls = self._spend(client)
        self._show_usage(client, events, calls)
        self._show_alerts(client)
        self._show_checks(client)
        self._show_prices(client, events)
        self._show_audit(client)

    def finish(self) -> int:
        """The last lines, after the service has stopped."""
        self._console.print()
        if self.differed:
            for what in self.differed:
                self._say(f"differs: {what}", style="bold red")
            return 1
        self._say(
            f"Everything was as expected. {self._batches.events:,} events went in at "
            f"{self._batches} in batches of {BATCH}, and {self._singles.events:,} "
            f"one after another at {self._singles} with a check before each. "
            "Every one was on disk before its answer."
        )
        self._say("The service is stopped and its folder is gone. Start it for real: make serve")
        return 0

    # ---- what goes in -----------------------------------------------------------------------

    def _set_limits(self, client: Client) -> None:
        self._open("Two limits")
        self._say(
            f"{ALICE.user_id} may spend {show.usd(BUDGET_USD)} a billing period, and everyone on "
            f"the plan may make {CALLS_A_DAY:,} calls a day; alerts at 80, 90 and 100 %."
        )
        plan = client.post("/v1/plans", Created, {"name": "team", "default": True})
        calls_a_day = {
            "name": "daily calls",
            "scope": {"plan_id": plan.id},
            "metric": "calls",
            "window": "day",
            "amount": CALLS_A_DAY,
        }
        budget = {
            "name": "budget",
            "scope": {"user_id": ALICE.user_id},
            "metric": "cost_usd",
            "window": "billing_period",
            "amount": BUDGET_USD,
            "action": "block",
            "thresholds": THRESHOLDS,
        }
        for limit in (calls_a_day, budget):
            client.post("/v1/limits", Created, limit)

    def _replay(self, client: Client) -> list[EventIn]:
        now = self._clock.now()
        events = replayed(now)
        usages = len(recorded_usages())
        self._open(f"Three months of usage: {len(events):,} calls from {usages} recorded ones")
        oldest = now - BACKFILL
        old = [event for event in events if event.timestamp and event.timestamp < oldest]
        batches = [(batch, True) for batch in _batches(old)]
        batches += [(batch, False) for batch in _batches(events[len(old) :])]
        with self._progress() as progress:
            task = progress.add_task("sent", total=len(events))
            for batch, backfill in batches:
                answer = self._send(client, batch, backfill=backfill)
                self._expect(answer.recorded == len(batch), f"a batch was recorded as {answer}")
                progress.advance(task, len(batch))
        last, backfill = batches[-1]
        again = self._send(client, last, backfill=backfill)
        self._say(
            f"The last batch once more: {again.recorded} recorded, {again.duplicates} duplicates, "
            f"{show.usd(again.cost_usd)} added."
        )
        self._expect(
            (again.recorded, again.duplicates) == (0, len(last)), f"sent twice, counted as {again}"
        )
        return events

    def _send(self, client: Client, batch: Sequence[EventIn], *, backfill: bool) -> Batch:
        start = self._clock.monotonic_s()
        params = {"backfill": "true"} if backfill else None
        answer = client.post("/v1/events", Batch, batch, params)
        took = self._clock.monotonic_s() - start
        if answer.recorded:
            events, seconds = self._batches
            self._batches = Pace(events + answer.recorded, seconds + took)
        return answer

    def _spend(self, client: Client) -> int:
        """Let Alice ask and call until she may not call any more."""
        self._open("Alice goes on, call by call, and asks before each")
        start, before = self._clock.monotonic_s(), ""
        for made, event in enumerate(live(MANY_LIVE)):
            check = client.post("/v1/limits/check", Check, {"user_id": ALICE.user_id})
            if not check.allowed:
                self._say(f"call {made + 1} would be denied: {check.message}")
                break
            receipt = client.post("/v1/events", Receipt, event)
            self._singles = Pace(made + 1, self._clock.monotonic_s() - start)
            if receipt.usage_status != before:
                told = f"call {made + 1} to {event.model} for {show.usd(receipt.cost_usd)}:"
                self._console.print(told, show.status(receipt.usage_status), highlight=False)
                before = receipt.usage_status
        else:
            self.differed.append(f"alice was never denied in {MANY_LIVE} calls")
        self._expect(self._singles.events > 0, "alice was denied before her first call")
        return self._singles.events

    # ---- what comes out ---------------------------------------------------------------------

    def _show_usage(self, client: Client, events: Sequence[EventIn], calls: int) -> None:
        path = f"/v1/users/{ALICE.user_id}/usage"
        usage = client.get(path, Usage)
        self._open("What alice used this period", show.usage_table(usage, ALICE.user_id))
        trends = client.get(f"{path}/trends", Trends, {"periods": 4})
        self._open("How it came to that", show.trends_table(trends.items))
        sent = calls + sum(event.user_id == ALICE.user_id for event in events)
        counted = sum(period.total_calls for period in trends.items)
        self._expect(counted == sent, f"{sent} calls of alice were sent and {counted} counted")
        self._expect(usage.usage_status == "limit_reached", f"alice is {usage.usage_status}")

    def _show_alerts(self, client: Client) -> None:
        found = client.get(f"/v1/users/{ALICE.user_id}/alerts", Alerts).items
        alerts = sorted(found, key=lambda alert: (alert.created_at, alert.threshold))
        self._open("Alerts, each raised once", show.alerts_table(alerts))
        raised = [(alert.threshold, alert.severity) for alert in alerts]
        expected = list(zip(THRESHOLDS, ("info", "warning", "error"), strict=True))
        self._expect(raised == expected, f"alerts were {raised}, expected {expected}")

    def _show_checks(self, client: Client) -> None:
        call = {"provider": "openai", "model": "gpt-5-mini"}
        usage = {"input_tokens": 12_000, "output_tokens": 800}
        ask = call | {"usage": usage}
        checks = {
            user_id: client.post("/v1/limits/check", Check, ask | {"user_id": user_id})
            for user_id in (ALICE.user_id, "bruno")
        }
        self._open("May this call be made?", show.checks_table(checks))
        answers = {user_id: check.allowed for user_id, check in checks.items()}
        expected = {ALICE.user_id: False, "bruno": True}
        self._expect(answers == expected, f"allowed were {answers}, expected {expected}")

    def _show_prices(self, client: Client, events: Sequence[EventIn]) -> None:
        cached = next(one for one in recorded_usages() if one.usage.cache_write_tokens)
        ask = {"provider": cached.provider, "model": cached.model, "usage": cached.usage}
        estimate = client.post("/v1/prices/estimate", Estimate, ask)
        self._open(f"What a call of {cached.model} costs", show.estimate_table(estimate))
        self._expect(len(estimate.lines) > 1, "an estimate has a line for each kind of token")
        unpriced: Counter[tuple[str, str]] = Counter()
        calls = Counter(_what(event.provider, event.model, event.usage) for event in events)
        for one in recorded_usages():
            ask = {"provider": one.provider, "model": one.model, "usage": one.usage}
            if client.post("/v1/prices/estimate", Estimate, ask).cost_usd is None:
                made = calls[_what(one.provider, one.model, one.usage)]
                unpriced[one.provider, one.model] += made
        if unpriced:
            title = "Counted though nothing prices them: unknown is not free"
            self._open(title, show.unpriced_table(unpriced))

    def _show_audit(self, client: Client) -> None:
        audit = client.get("/v1/audit/consistency", Audit)
        self._open("The audit: log, totals, limits and alerts agree", show.audit_table(audit))
        self._expect(audit.consistent, "the audit found differences")
        self._expect(bool(audit.identities), "the audit compared nothing")

    # ---- how it is told ---------------------------------------------------------------------

    def _open(self, title: str, shown: RenderableType | None = None) -> None:
        self._sections += 1
        self._console.print(show.heading(self._sections, title))
        if shown is not None:
            self._console.print(Constrain(shown, WIDEST))

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, highlight=False, markup=False)

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.differed.append(otherwise)

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            expand=True,
        )


def _batches(events: Sequence[EventIn]) -> list[Sequence[EventIn]]:
    return [events[place : place + BATCH] for place in range(0, len(events), BATCH)]


def _what(provider: str, model: str, usage: UsageIn | None) -> tuple[str, str, bytes]:
    return provider, model, msgspec.json.encode(usage)
