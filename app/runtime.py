"""The service's parts, built once and handed to whoever needs them."""

import os
from dataclasses import dataclass
from datetime import timedelta

from app.access.keys import KeyRing
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
from app.ingest.holds_door import HoldDoor, SettleDoor
from app.ingest.intake import Intake
from app.ingest.meter import House
from app.ingest.rerate_apply import Parts
from app.jobs import Job, Jobs
from app.limits import hold_ends
from app.limits.door import CheckDoor
from app.limits.known import Rules
from app.plans.known import Agreements
from app.pricing.catalog import Catalog
from app.pricing.known import Prices
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
    guard: Guard
    sender: Sender
    courier: Courier
    jobs: Jobs

    async def start(self) -> None:
        """Read the configuration and open the intake."""
        await self.db.read(self.feed.catch_up)
        self.intake.start()

    async def close(self) -> None:
        """Finish what was accepted, then let the database go."""
        await self.jobs.close()
        await self.courier.close()
        await self.intake.close()
        await self.sender.close()
        await self.db.close()


def build(
    settings: Settings, *, clock: Clock | None = None, catalog: Catalog | None = None
) -> Runtime:
    """Put the parts together; nothing is connected before `start`.

    A `catalog` that is given holds until the database has one of its own.
    """
    clock = clock or Clock()
    db = Database.open(settings.database_url, pool_size=settings.pool_size)
    admin = settings.admin_key.get_secret_value() if settings.admin_key else None
    feed, keys = Feed(), KeyRing(admin, clock.now())
    house = House(Prices(catalog), Agreements(), Rules(), clock)
    feed.listen("keys", keys.reload)
    feed.listen("plans", house.agreements.reload_plans)
    feed.listen("subscriptions", house.agreements.reload)
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
    jobs = Jobs(db, clock, [unrated, carrying, _holds(db, clock), *_alerting(db, clock, settings)])

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
    )
    window = Window(
        timedelta(days=settings.window_past_days), timedelta(seconds=settings.window_future_s)
    )
    events = EventsDoor(db, feed, keys, intake, clock, window)
    holds = HoldDoor(db, feed, keys, intake, house.prices, clock)
    settle = SettleDoor(db, feed, keys, intake, clock, window)
    check = CheckDoor(db, feed, keys, house.agreements, house.rules, house.prices, clock)
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
        guard,
        sender,
        courier,
        jobs,
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
