"""Carry what the outbox holds to its receivers: each message at least once, soon, and fairly.

Any number of processes may do it beside each other: each claims a delivery before it sends. Slow
receivers have a few attempts in flight at most, so that they hold up themselves alone.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from secrets import token_hex

from loguru import logger

from app.alerts.deliveries import Claimed, claim, due, finish, forget_messages
from app.alerts.schedule import Verdict, verdict_on
from app.alerts.sender import Sender
from app.alerts.webhooks import Hook, disable_webhook, list_webhooks
from app.core.clock import Clock
from app.core.errors import Unavailable
from app.db.engine import Database, Tx

NAME = "webhooks"
EVERY_S = 1.0
"""How often it is asked whether something is due: one short read."""
TIDY_EVERY = timedelta(hours=1)
TIDY_ROWS = 500
LEAVING_S = 2.0


class Courier:
    """Sends what is due, a bounded number at a time."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        sender: Sender,
        *,
        in_flight: int = 16,
        keep_days: int = 30,
    ) -> None:
        self._db, self._clock, self._sender = db, clock, sender
        self._most, self._of_one = in_flight, max(1, in_flight // 4)
        self._keep = timedelta(days=keep_days)
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._tidied_at = clock.now()
        self.made = 0

    async def close(self) -> None:
        """Give what is in flight a moment.

        What is cut short stays claimed, and is sent again when its claim has run out.
        """
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=LEAVING_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    # ---- as a job -----------------------------------------------------------------------------

    async def is_due(self) -> bool:
        """Whether there is something to send and room for it, or it is time to tidy. Only reads."""
        now = self._clock.now()
        return self._tidying_is_due(now) or bool((await self._look(now))[1])

    async def work(self) -> None:
        """Begin to send what is due, and tidy when it is time; waits for no receiver."""
        await self.step()
        await self.tidy()

    # ---- one look -----------------------------------------------------------------------------

    async def step(self) -> int:
        """Claim what is due and there is room for, and begin to send it; how many that is."""
        now = self._clock.now()
        hooks, found = await self._look(now)
        if not found:
            return 0
        chosen = _fairly(found, Counter(self._tasks.values()))
        chosen = chosen[: self._most - len(self._tasks)]
        mark = token_hex(8)
        taken = await self._db.write(lambda tx: claim(tx, chosen, mark, now))
        for one in taken:
            task = asyncio.create_task(self._carry(one, hooks[one.webhook_id], mark))
            self._tasks[task] = one.webhook_id
            task.add_done_callback(self._done)
        return len(taken)

    async def idle(self) -> None:
        """Wait until nothing is in flight."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _look(self, now: datetime) -> tuple[dict[str, Hook], list[tuple[str, str]]]:
        if len(self._tasks) >= self._most:
            return {}, []
        return await self._db.read(partial(self._due, Counter(self._tasks.values()), now))

    async def _due(
        self, busy: Mapping[str, int], now: datetime, tx: Tx
    ) -> tuple[dict[str, Hook], list[tuple[str, str]]]:
        hooks = {hook.id: hook for hook in await list_webhooks(tx, None, None, enabled=True)}
        room = {hook_id: self._of_one - busy.get(hook_id, 0) for hook_id in hooks}
        return hooks, await due(tx, room, now)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            expected = isinstance(error, Unavailable)
            logger.opt(exception=None if expected else error).warning("webhooks.not_noted")

    async def _carry(self, taken: Claimed, hook: Hook, mark: str) -> None:
        letter = hook.letter(taken.message_id, taken.payload, self._clock.now())
        outcome = await self._sender.send(letter, self._clock.now())
        now = self._clock.now()
        verdict = verdict_on(outcome, taken.failures, now, random.random())
        await self._db.write(lambda tx: finish(tx, taken, mark, outcome, verdict, now))
        self.made += 1
        await self._told(taken, hook, verdict, now)

    async def _told(self, taken: Claimed, hook: Hook, verdict: Verdict, now: datetime) -> None:
        told = logger.bind(webhook=hook.id, message=taken.message_id, attempt=taken.attempts + 1)
        if verdict.webhook_is_gone:
            reason = "the receiver answered 410 Gone"
            await self._db.write(lambda tx: disable_webhook(tx, hook.id, reason, now), alone=True)
            told.warning("webhook.disabled")
        elif verdict.state == "dead":
            told.warning("delivery.dead")

    # ---- tidying ------------------------------------------------------------------------------

    async def tidy(self) -> None:
        """Once an hour, forget messages that arrived or died long ago."""
        now = self._clock.now()
        if not self._tidying_is_due(now):
            return
        self._tidied_at = now
        before = now - self._keep
        more = True
        while more:
            more = await self._db.write(lambda tx: forget_messages(tx, before, TIDY_ROWS))

    def _tidying_is_due(self, now: datetime) -> bool:
        return now >= self._tidied_at + TIDY_EVERY


def _fairly(found: list[tuple[str, str]], busy: Mapping[str, int]) -> list[str]:
    """Deliveries in turns: first the webhooks that have the fewest in flight. Pure."""
    turns: Counter[str] = Counter(busy)
    ranked = []
    for delivery_id, webhook_id in found:
        ranked.append((turns[webhook_id], delivery_id))
        turns[webhook_id] += 1
    return [delivery_id for _, delivery_id in sorted(ranked, key=lambda pair: pair[0])]


async def deliver_due(db: Database, clock: Clock, sender: Sender, *, in_flight: int = 16) -> int:
    """Send everything that is due now and wait for it; how many attempts that were."""
    courier = Courier(db, clock, sender, in_flight=in_flight)
    while await courier.step():
        await courier.idle()
    return courier.made
