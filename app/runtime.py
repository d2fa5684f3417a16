"""The service's parts, built once and handed to whoever needs them."""

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta

from app.access.keys import KeyRing
from app.access.last_used import LastUsed
from app.alerts import deliver, outlook, recovered, watch
from app.alerts.deliver import Courier
from app.alerts.guard import Guard
from app.alerts.sender import Post, Sender
from app.core.clock import Clock
from app.db.changes import Feed
from app.db.engine import Database, Tx
from app.ingest import unpriced
from app.ingest.calls import Window
from app.ingest.door import EventsDoor
from app.ingest.foreign import langfuse_door
from app.ingest.foreign.identity import Identity
from app.ingest.foreign.langfuse_door import Langfuse
from app.ingest.foreign.submit import Foreign
from app.ingest.foreign.tally import Tally
from app.ingest.holds_door import HoldDoor, SettleDoor
from app.ingest.intake import Intake
from app.ingest.meter import House
from app.ingest.otlp import context as otlp_context
from app.ingest.otlp.door import OtlpDoor, names_of
from app.ingest.otlp.intake import OtlpIntake
from app.ingest.rerate_apply import Parts
from app.jobs import Job, Jobs
from app.limits import hold_ends
from app.limits.door import CheckDoor
from app.limits.known import Rules
from app.metrics.figures import Figures
from app.metrics.traces import Traces
from app.metrics.workers import Workers
from app.plans.known import Agreements
from app.pricing.catalog import Catalog
from app.pricing.known import Prices
from app.retention import job as wrapping
from app.retention.groups import WrappedLog
from app.retention.policy import policy_from
from app.retention.store import ArchiveStore
from app.retention.wrap import Parts as WrapParts
from app.scrape.page import Scrape
from app.scrape.stored import Stored
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything one serving process holds."""

    settings: Settings
    db: Database
    clock: Clock
    feed: Feed
    keys: KeyRing
    house: House
    intake: Intake
    events: EventsDoor
    check: CheckDoor
    holds: HoldDoor
    settle: SettleDoor
    foreign: Foreign
    langfuse: Langfuse
    otlp_intake: OtlpIntake
    otlp: OtlpDoor
    guard: Guard
    sender: Sender
    courier: Courier
    jobs: Jobs
    store: ArchiveStore
    wrap: WrapParts
    wrapped_log: WrappedLog
    watch: wrapping.Watch
    last_used: LastUsed
    figures: Figures
    workers: Workers
    scrape: Scrape

    def listed(self, user_id: str) -> None:
        """A user's events were listed: whether they are too many is looked at soon."""
        if self.has_jobs and self.watch.ask(user_id):
            self.jobs.wake(wrapping.NAME)

    @property
    def has_jobs(self) -> bool:
        """Whether this process does jobs, or leaves them to a worker."""
        return self.settings.jobs == "on"

    async def start(self) -> None:
        """Read the configuration and open the intake."""
        await self.db.read(self.feed.catch_up)
        self.workers.start()
        self.intake.start()
        self.last_used.start()

    async def close(self) -> None:
        """Finish what was accepted, then let the database go."""
        await self.jobs.close()
        await self.courier.close()
        await self.otlp_intake.close()
        await self.intake.close()
        await self.sender.close()
        await self.store.close()
        await self.last_used.close()
        await self.workers.close()
        if self.figures.traces is not None:
            await asyncio.to_thread(self.figures.traces.close)
        await self.db.close()


def build(
    settings: Settings, *, clock: Clock | None = None, catalog: Catalog | None = None
) -> Runtime:
    """Put the parts together; nothing is connected before `start`.

    A `catalog` that is given holds until the database has one of its own.
    """
    clock = clock or Clock()
    db = Database.open(
        settings.database_url,
        pool_size=settings.pool_size,
        patience_s=settings.database_timeout_s,
    )
    figures = Figures(clock)
    if settings.traces_endpoint:
        figures.traces = Traces(settings.traces_endpoint, clock)
    db.heard = figures.hear
    admin = settings.admin_key.get_secret_value() if settings.admin_key else None
    feed, keys = Feed(), KeyRing(admin, clock.now())
    house = House(Prices(catalog), Agreements(), Rules(), clock)
    feed.listen("keys", keys.reload)
    feed.listen("plans", house.agreements.reload_plans)
    feed.listen("subscriptions", house.agreements.reload)
    feed.listen("wrapped", house.wrapped.reload)
    guard = Guard(
        allow_private=settings.webhooks_allow_private,
        allow_http=settings.webhooks_allow_http,
        allow_hosts=settings.webhooks_allow_hosts.split(","),
    )
    sender = Post(guard, clock)
    courier = Courier(
        db,
        clock,
        sender,
        in_flight=settings.webhooks_in_flight,
        keep_days=settings.webhooks_keep_days,
    )
    carrying = Job(deliver.NAME, deliver.EVERY_S, courier.is_due, courier.work)
    unrated = _unpriced(Parts(db, feed, house, clock))
    store = ArchiveStore(settings.archive_url)
    bounds = policy_from(
        settings.retention_max_rows, settings.retention_keep_rows, settings.retention_max_age_days
    )
    wrap = WrapParts(db, store, clock, bounds)
    watch = wrapping.Watch(wrap)
    wraps = Job(wrapping.NAME, wrapping.EVERY_S, watch.is_due, watch.work)
    parted = Job(
        langfuse_door.NAME,
        langfuse_door.EVERY_S,
        lambda: langfuse.is_due(),
        lambda: langfuse.finish(),
    )
    jobs = Jobs(
        db,
        clock,
        [
            unrated,
            carrying,
            parted,
            wraps,
            _holds(db, clock),
            _otlp(db, clock),
            *_alerting(db, clock, settings),
        ],
        figures,
    )

    async def prices_changed(tx: Tx, refs: set[str]) -> None:
        await house.prices.reload(tx, refs)
        jobs.wake(unpriced.NAME)

    feed.listen("prices", prices_changed)
    feed.listen("limits", house.rules.reload)
    sqlite = db.dialect == "sqlite"
    intake = Intake(
        db,
        feed,
        keys,
        house,
        clock,
        lanes=1 if sqlite else settings.lanes,
        first_shard=0 if sqlite else _shard(settings),
        figures=figures,
    )
    window = Window(
        timedelta(days=settings.window_past_days), timedelta(seconds=settings.window_future_s)
    )
    events = EventsDoor(db, feed, keys, intake, clock, window, figures)
    holds = HoldDoor(db, feed, keys, intake, house.prices, clock)
    settle = SettleDoor(db, feed, keys, intake, clock, window)
    tally = Tally(figures.foreign)
    identity = Identity(
        settings.foreign_user_names,
        settings.foreign_team_names,
        settings.foreign_session_names,
        settings.foreign_unknown_user,
        tally,
    )
    foreign = Foreign(
        *(db, feed, keys, intake, house.prices, clock, window, identity, tally),
        trust=settings.foreign_costs,
        figures=figures,
    )
    wrapped_log = WrappedLog(db, store)
    langfuse = Langfuse(
        *(db, clock, foreign, Parts(db, feed, house, clock), wrapped_log.entry),
        wait=timedelta(seconds=settings.foreign_wait_s),
    )
    otlp_intake = OtlpIntake(
        *(db, feed, keys, house, clock, foreign),
        unknown=settings.foreign_unknown_user,
        keep_for=timedelta(minutes=settings.otlp_context_minutes),
        read_row=wrapped_log.entry,
    )
    otlp = OtlpDoor(
        *(foreign, otlp_intake, names_of(settings.foreign_user_names)),
        *(names_of(settings.foreign_team_names), names_of(settings.foreign_session_names)),
    )
    check = CheckDoor(db, feed, keys, house.agreements, house.rules, house.prices, clock, figures)
    workers = Workers(figures, clock, settings.metrics_folder)
    stored = Stored(db, clock, settings.archive_url)
    figures.config_version.read(lambda: feed.version)
    return Runtime(
        settings,
        db,
        clock,
        feed,
        keys,
        house,
        intake,
        events,
        check,
        holds,
        settle,
        foreign,
        langfuse,
        otlp_intake,
        otlp,
        guard,
        sender,
        courier,
        jobs,
        store,
        wrap,
        wrapped_log,
        watch,
        LastUsed(db, keys.uses),
        figures,
        workers,
        Scrape(figures, workers, stored, settings.metrics),
    )


def _holds(db: Database, clock: Clock) -> Job:
    async def work() -> None:
        while await db.write(lambda tx: hold_ends.tidy(tx, clock)):
            pass

    return Job(
        hold_ends.NAME,
        hold_ends.EVERY_S,
        lambda: db.read(lambda tx: hold_ends.is_untidy(tx, clock)),
        work,
    )


def _otlp(db: Database, clock: Clock) -> Job:
    async def work() -> None:
        while await db.write(lambda tx: otlp_context.forget(tx, clock.now())):
            pass

    return Job(
        otlp_context.NAME,
        otlp_context.EVERY_S,
        lambda: db.read(lambda tx: otlp_context.is_old(tx, clock.now())),
        work,
    )


def _unpriced(parts: Parts) -> Job:
    return Job(
        unpriced.NAME,
        unpriced.EVERY_S,
        lambda: unpriced.is_due(parts),
        lambda: unpriced.rate_unpriced(parts),
    )


def _alerting(db: Database, clock: Clock, settings: Settings) -> list[Job]:
    ahead, back = settings.alert_forecasts, settings.alert_recovered
    return [
        Job(
            outlook.NAME,
            outlook.EVERY_S,
            lambda: outlook.is_due(db, clock.now()),
            lambda: outlook.foresee(db, clock.now(), by_default=ahead),
        ),
        Job(
            recovered.NAME,
            recovered.EVERY_S,
            lambda: recovered.is_due(db, clock.now(), by_default=back),
            lambda: recovered.tell_recovered(db, clock.now(), by_default=back),
        ),
        Job(
            watch.NAME,
            watch.EVERY_S,
            lambda: watch.is_due(db, clock.now()),
            lambda: watch.watch(db, clock.now()),
        ),
    ]


def _shard(settings: Settings) -> int:
    """This process's first number in the cross-user totals: any will do, sharing only queues."""
    number = settings.shard if settings.shard >= 0 else os.getpid() % 64
    return number * settings.lanes
