"""The service's parts, built once and handed to whoever needs them."""

import os
from dataclasses import dataclass
from datetime import timedelta

from app.access.keys import KeyRing
from app.core.clock import Clock
from app.db.changes import Feed
from app.db.engine import Database
from app.ingest.calls import Window
from app.ingest.door import EventsDoor
from app.ingest.intake import Intake
from app.ingest.meter import House
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

    async def start(self) -> None:
        """Read the configuration and open the intake."""
        await self.db.read(self.feed.catch_up)
        self.intake.start()

    async def close(self) -> None:
        """Finish what was accepted, then let the database go."""
        await self.intake.close()
        await self.db.close()


def build(
    settings: Settings, *, clock: Clock | None = None, catalog: Catalog | None = None
) -> Runtime:
    """Put the parts together; nothing is connected before `start`."""
    clock = clock or Clock()
    db = Database.open(settings.database_url, pool_size=settings.pool_size)
    admin = settings.admin_key.get_secret_value() if settings.admin_key else None
    feed, keys = Feed(), KeyRing(admin, clock.now())
    house = House(Prices(catalog or Catalog.from_genai()), Agreements(), Rules())
    feed.listen("keys", keys.reload)
    feed.listen("plans", house.agreements.reload_plans)
    feed.listen("subscriptions", house.agreements.reload)
    feed.listen("prices", house.prices.reload)
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
    check = CheckDoor(db, feed, keys, house.agreements, house.rules, house.prices, clock)
    return Runtime(settings, db, clock, feed, keys, house, intake, events, check)


def _shard(settings: Settings) -> int:
    """This process's first number in the cross-user totals: any will do, sharing only queues."""
    number = settings.shard if settings.shard >= 0 else os.getpid() % 64
    return number * settings.lanes
