"""`POST /v1/limits/check`: callers that ask at the same time share one read of the counters."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from app.access.guard import require, require_user, token_of
from app.access.keys import Key, KeyRing, find_fresh
from app.core.clock import Clock, rfc3339
from app.core.counters import INPUT, OUTPUT
from app.core.errors import AppError, InvalidInput, Unavailable
from app.core.money import to_usd
from app.db.changes import Feed
from app.db.engine import Database, Tx
from app.limits.check import Ask, Standing, State, current_keys, denies, judge, standing_of
from app.limits.counters import percent_of
from app.limits.held import stands_now
from app.limits.known import Rules, scope_keys
from app.limits.windows import shown_end
from app.metrics.figures import Figures
from app.plans.known import Agreement, Agreements, agreement_of
from app.plans.periods import calendar_months
from app.pricing.known import Prices
from app.pricing.usage import usage_of
from app.web.lean import LeanAnswer, LeanRequest, media_type
from app.web.strict import check_name, inflate, is_plain, read_json, stated_cost

MAX_BODY = 64 * 1024
QUEUED = 20_000
EXPIRED = "subscription expired"
Name = Annotated[str, Meta(min_length=1, max_length=256)]


class AskIn(Struct, forbid_unknown_fields=True, gc=False):
    """What a caller says of the call it would like to make."""

    user_id: Name
    provider: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    model: Name | None = None
    endpoint: Annotated[str, Meta(max_length=512)] | None = None
    team_id: Name | None = None
    api_key_id: Name | None = None
    usage: dict[str, Annotated[float, Meta(ge=0, le=2**53 - 1)]] | None = None
    cost_usd: Annotated[str, Meta(max_length=40)] | None = None
    context: dict[str, str] | None = None


class Verdict(NamedTuple):
    """What the counters say to one ask; `expired`: the subscription is over, and refuses."""

    states: list[State]
    standing: Standing
    expired: bool


class Waiting(NamedTuple):
    """One ask and whoever waits for its verdict: a future, or what is shaped like one."""

    ask: Ask
    token: str
    version: int
    answer: Any
    arrived_s: float


_decoder = msgspec.json.Decoder(AskIn)
_encode = msgspec.json.Encoder().encode


class CheckDoor:
    """Reads an ask, waits for the shared read, writes the verdict."""

    def __init__(
        self,
        db: Database,
        feed: Feed,
        keys: KeyRing,
        agreements: Agreements,
        rules: Rules,
        prices: Prices,
        clock: Clock,
        figures: Figures | None = None,
    ) -> None:
        self._checks = (figures or Figures(clock)).checks
        self._db, self._feed, self._keys = db, feed, keys
        self._agreements, self._rules = agreements, rules
        self._prices, self._clock = prices, clock
        self._waiting: list[Waiting] = []
        self._task: asyncio.Task[None] | None = None

    def swift(self, headers: dict[bytes, bytes], body: bytes, answer: Any) -> bool:
        """Take a plain ask, to be answered with everyone else's who asks now.

        Returns False for what the ordinary way reads better: encodings, keys memory does not admit.

        Raises:
            AppError: as `__call__`.
        """
        if b"content-encoding" in headers or headers.get(b"content-type") != b"application/json":
            return False
        now = self._clock.now()
        token = token_of(headers)
        try:
            key = self._keys.admit(token, now)
        except AppError:
            return False
        if not key.may("check"):
            return False
        ask = self._asked(key, body, now)
        answer.render = partial(answered, ask)
        self._enqueue(ask, token, self._feed.version, answer)
        return True

    async def __call__(self, request: LeanRequest) -> LeanAnswer:
        """Answer one request; always 200 where the question itself is valid."""
        now = self._clock.now()
        token = token_of(request.headers)
        version = self._feed.version
        key = await find_fresh(self._db, self._feed, self._keys, token, now, "check")
        require(key, "check")
        request.parameters()
        media_type(request, ("application/json",))
        body = await request.body(MAX_BODY)
        if encoding := request.header(b"content-encoding").strip().lower():
            body = inflate(body, encoding, MAX_BODY)
        ask = self._asked(key, body, now)
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._enqueue(ask, token, version, answer)
        return answered(ask, await answer)

    def _asked(self, key: Key, body: bytes, now: datetime) -> Ask:
        require(key, "check")
        said = read_json(_decoder, body)
        require_user(key, said.user_id)
        if not is_plain(body):
            for field in ("user_id", "provider", "model", "endpoint", "team_id", "api_key_id"):
                if value := getattr(said, field):
                    check_name(value, f"/{field}", 1024)
        return self._ask(said, now)

    def _enqueue(self, ask: Ask, token: str, version: int, answer: Any) -> None:
        if len(self._waiting) >= QUEUED:
            raise Unavailable("too many checks are waiting")
        now_s = self._clock.monotonic_s()
        self._waiting.append(Waiting(ask, token, version, answer, now_s))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())

    def _ask(self, said: AskIn, now: datetime) -> Ask:
        usage = None if said.usage is None else usage_of(said.usage)
        cost: int | None = None
        if said.cost_usd is not None:
            cost = stated_cost(said.cost_usd, "/cost_usd")
        if cost is None and usage is not None:
            try:
                call = (said.provider, said.model, now, usage, said.context)
                cost = self._prices.catalog.quote(*call, said.user_id, said.team_id)[0]
            except OverflowError as error:
                raise InvalidInput.at("/usage", str(error)) from None
        return Ask(
            said.user_id,
            said.provider,
            said.model,
            said.endpoint,
            said.team_id,
            said.api_key_id,
            None if usage is None else usage[INPUT],
            None if usage is None else usage[OUTPUT],
            cost,
        )

    async def _drain(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, []
            waited_s = self._clock.monotonic_s() - asked[0].arrived_s
            left_s = max(self._db.patience_s - waited_s, 0.01)
            try:
                await self._db.glance(partial(self._judge, asked), within_s=left_s)
            except Exception as error:  # each waiter is told; the door stays open
                for one in asked:
                    if not one.answer.done():
                        one.answer.set_exception(error)

    async def _judge(self, asked: Sequence[Waiting], tx: Tx) -> None:
        await self._feed.catch_up(tx)
        now = self._clock.now()
        agreements = await self._agreements.of(tx, {one.ask.user_id for one in asked})
        unseen = agreement_of([calendar_months(self._agreements.default_plan)])
        agreed = {user_id: found or unseen for user_id, found in agreements.items()}
        wanted: set[str] = set()
        for one in asked:
            ask = one.ask
            plan_id = agreed[ask.user_id].terms_at(now).plan_id
            wanted.update(scope_keys(ask.user_id, plan_id, ask.team_id, ask.api_key_id))
        await self._rules.load(tx, wanted)
        found = [(one, self._applying(one.ask, agreed[one.ask.user_id], now)) for one in asked]
        keys = sorted({key for _, applying in found for _, key, _ in applying})
        counters = await stands_now(tx, keys, self._clock)
        allowed = denied = 0
        for one, applying in found:
            if one.answer.done():
                continue
            if one.version != self._feed.version:
                try:
                    self._keys.find_still(one.token, now, "check")
                except AppError as error:
                    one.answer.set_exception(error)
                    continue
            states = judge(one.ask, applying, counters)
            matching = [state for state in states if _matches(state, one.ask)]
            expired = agreed[one.ask.user_id].terms_at(now).refuses_at(now)
            one.answer.set_result(Verdict(matching, standing_of(states), expired))
            if expired or any(map(denies, matching)):
                denied += 1
            else:
                allowed += 1
        self._checks.add("allowed", by=allowed)
        self._checks.add("denied", by=denied)

    def _applying(self, ask: Ask, agreement: Agreement, now: datetime) -> Any:
        plan_id = agreement.terms_at(now).plan_id
        rules = self._rules.of(ask.user_id, plan_id, ask.team_id, ask.api_key_id)
        return current_keys(rules, agreement, ask.user_id, now)


def _matches(state: State, ask: Ask) -> bool:
    return state.rule.matches(ask.provider, ask.model, ask.endpoint)


# ---- answers ----------------------------------------------------------------------------------


def state_out(state: State) -> dict[str, Any]:
    """One limit's state, as the contract has it; money as decimal strings."""
    rule = state.rule
    show: Any = to_usd if rule.metric == "cost_usd" else int
    scope, _, of = rule.scope_key.partition(":")
    return {
        "id": rule.id,
        "name": rule.name,
        "metric": rule.metric,
        "window": rule.window,
        "scope": {"all": True} if scope == "all" else {_SCOPES[scope]: of},
        "limit": None if rule.amount is None else show(rule.amount),
        "used": show(state.used),
        "held": show(state.held),
        "remaining": None if state.remaining is None else show(state.remaining),
        "percent_used": percent_of(state.used, rule.amount),
        "resets_at": None if (end := shown_end(state.resets_at)) is None else rfc3339(end),
        "action": rule.action,
        "allowed": state.allowed,
        "raised_until": None if rule.raised_until is None else rfc3339(rule.raised_until),
    }


_SCOPES = {"user": "user_id", "plan": "plan_id", "team": "team_id", "key": "api_key_id"}


def answered(ask: Ask, verdict: Verdict) -> LeanAnswer:
    """The verdict as JSON."""
    binding = next((state for state in verdict.states if denies(state)), None)
    body = {
        "allowed": binding is None and not verdict.expired,
        "message": EXPIRED if verdict.expired else message_of(binding),
        "estimated_cost_usd": None if ask.cost_nanos is None else to_usd(ask.cost_nanos),
        "binding": None if binding is None else state_out(binding),
        "limits": [state_out(state) for state in verdict.states],
        "usage_status": verdict.standing.usage_status,
    }
    headers: list[tuple[bytes, bytes]] = []
    if ask.cost_nanos is not None:
        headers.append((b"x-tollgate-cost-usd", to_usd(ask.cost_nanos).encode()))
    if verdict.standing.remaining_nanos is not None:
        left = to_usd(verdict.standing.remaining_nanos)
        headers.append((b"x-tollgate-remaining-usd", left.encode()))
    return LeanAnswer(200, _encode(body), tuple(headers))


def message_of(binding: State | None) -> str:
    """One sentence for the person whose call it is."""
    if binding is None:
        return "allowed"
    rule = binding.rule
    show: Any = to_usd if rule.metric == "cost_usd" else "{:,}".format
    unit = "USD" if rule.metric == "cost_usd" else rule.metric.replace("_", " ")
    end = shown_end(binding.resets_at)
    return (
        f"the limit “{rule.name}” leaves {show(binding.remaining or 0)} of "
        f"{show(rule.amount or 0)} {unit} {'in all' if end is None else f'until {rfc3339(end)}'}"
    )
