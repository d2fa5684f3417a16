"""Plans, and who agreed to which, in which periods, since when."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, insert, literal, select, true, tuple_, update

from app.core.clock import EPOCH, MICROSECOND
from app.core.errors import Conflict, InvalidInput, NotFound
from app.db.changes import announce
from app.db.engine import Tx
from app.plans.known import create_plan, load, subscribe_new
from app.plans.periods import FAR, Terms, calendar_months, zone
from app.plans.tables import Plan, Subscription


class PlanRow(NamedTuple):
    """One plan as it is stored."""

    id: str
    name: str
    is_default: bool
    created_at: datetime


_PLAN = (Plan.id, Plan.name, Plan.is_default, Plan.created_at)


# ---- plans ------------------------------------------------------------------------------------


async def find_plan(tx: Tx, plan_id: str) -> PlanRow | None:
    """The plan of that id, or None."""
    row = await tx.first(select(*_PLAN).where(Plan.id == plan_id))
    return PlanRow._make(row) if row else None


async def get_plan(tx: Tx, plan_id: str) -> PlanRow:
    """The plan of that id.

    Raises:
        NotFound: there is none.
    """
    found = await find_plan(tx, plan_id)
    if found is None:
        raise NotFound("no such plan", id=plan_id)
    return found


async def default_plan(tx: Tx) -> PlanRow:
    """The plan of whoever was never subscribed; there is always exactly one."""
    row = await tx.first(select(*_PLAN).where(Plan.is_default.is_(true())))
    if row is None:
        raise RuntimeError("there is no default plan; the first migration makes one")
    return PlanRow._make(row)


async def list_plans(tx: Tx, after: tuple[datetime, str] | None, limit: int) -> list[PlanRow]:
    """At most `limit` plans in the order they were made."""
    query = select(*_PLAN).order_by(Plan.created_at, Plan.id).limit(limit)
    if after is not None:
        last = tuple_(literal(after[0], Plan.created_at.type), literal(after[1]))
        query = query.where(tuple_(Plan.created_at, Plan.id) > last)
    return [PlanRow._make(row) for row in await tx.fetch(query)]


async def add_plan(tx: Tx, name: str, *, is_default: bool, now: datetime) -> PlanRow:
    """Make a plan; a default one takes that over from the plan that was.

    Raises:
        Conflict: another plan has the name.
    """
    await _refuse_taken(tx, name, "")
    if is_default:
        await _clear_default(tx)
    plan_id = await create_plan(tx, name, is_default=is_default, now=now)
    return PlanRow(plan_id, name, is_default, now)


async def change_plan(
    tx: Tx, plan_id: str, *, name: str | None, is_default: bool | None, now: datetime
) -> PlanRow:
    """Rename a plan, or make it the default; None leaves as is.

    Raises:
        NotFound: no such plan.
        Conflict: the name is taken, or this would leave no default plan.
    """
    plan = await get_plan(tx, plan_id)
    if name is not None:
        await _refuse_taken(tx, name, plan_id)
        plan = plan._replace(name=name)
    if is_default is not None and is_default != plan.is_default:
        if not is_default:
            raise Conflict("one plan is always the default; make another one the default instead")
        await _clear_default(tx)
        plan = plan._replace(is_default=True)
    values = {"name": plan.name, "is_default": plan.is_default}
    await tx.run(update(Plan).where(Plan.id == plan_id).values(**values))
    await announce(tx, "plans", plan_id, now)
    return plan


async def delete_plan(tx: Tx, plan_id: str, now: datetime) -> None:
    """Remove a plan that nobody was ever on.

    Raises:
        NotFound: no such plan.
        Conflict: it is the default, or somebody is or was subscribed to it.
    """
    plan = await get_plan(tx, plan_id)
    if plan.is_default:
        raise Conflict("this is the default plan; make another one the default first")
    used = select(Subscription.user_id).where(Subscription.plan_id == plan_id).limit(1)
    if await tx.first(used) is not None:
        raise Conflict("somebody is, or was, subscribed to this plan")
    await tx.run(delete(Plan).where(Plan.id == plan_id))
    await announce(tx, "plans", plan_id, now)


async def _refuse_taken(tx: Tx, name: str, own_id: str) -> None:
    row = await tx.first(select(Plan.id).where(Plan.name == name))
    if row is not None and row[0] != own_id:
        raise Conflict("another plan has this name", id=row[0])


async def _clear_default(tx: Tx) -> None:
    await tx.run(update(Plan).where(Plan.is_default.is_(true())).values(is_default=False))


# ---- subscriptions ----------------------------------------------------------------------------


class Wish(NamedTuple):
    """What somebody wants to agree to; what is None stays as it is."""

    plan_id: str
    anchor_at: datetime | None
    timezone: str | None
    interval: str | None


async def terms_of(tx: Tx, user_id: str) -> Terms | None:
    """The newest terms of a user (they may start a moment ahead), or None for one never seen."""
    agreement = (await load(tx, [user_id])).get(user_id)
    return None if agreement is None else agreement.terms[-1]


async def subscribe(
    tx: Tx, user_id: str, wish: Wish, *, starts_at: datetime, now: datetime
) -> Terms:
    """Agree to terms and return them.

    A user without any terms, who therefore has no events either, gets them for all time, so that
    periods are counted from the anchor both ways. Whoever has terms keeps them until `starts_at`,
    which the caller chooses (see `limits/manage.next_start`); there a new period starts. Terms that
    are in force already are not agreed to twice: asking again changes nothing.

    Raises:
        InvalidInput: no such plan.
    """
    if await find_plan(tx, wish.plan_id) is None:
        raise InvalidInput.at("/plan_id", "no such plan")
    current = await terms_of(tx, user_id)
    wanted = wanted_terms(current, wish)
    if current is None:
        await subscribe_new(tx, [user_id], wanted, now)
        await announce(tx, "subscriptions", user_id, now)
        return wanted
    if wanted == current:
        return current
    return await _begin(tx, user_id, current, wanted._replace(starts_at=starts_at), now)


async def renew(tx: Tx, user_id: str, *, starts_at: datetime, now: datetime) -> Terms:
    """Start a new period at `starts_at`, counted from there, on the terms in force."""
    current = await terms_of(tx, user_id)
    if current is None:
        current = calendar_months((await default_plan(tx)).id)
        await subscribe_new(tx, [user_id], current, now)
    wanted = current._replace(starts_at=starts_at, anchor_at=starts_at)
    return await _begin(tx, user_id, current, wanted, now)


def wanted_terms(current: Terms | None, wish: Wish) -> Terms:
    """The wish, completed: by what is in force, else by calendar months in UTC."""
    known = current or calendar_months("")
    interval = wish.interval or known.interval
    timezone = wish.timezone or known.timezone
    anchor = wish.anchor_at
    if anchor is None:
        anchor = known.anchor_at
        if anchor == calendar_anchor(known.interval, known.timezone):
            anchor = calendar_anchor(interval, timezone)
    return Terms(known.starts_at, FAR, wish.plan_id, anchor, interval, timezone)


def calendar_anchor(interval: str, timezone: str) -> datetime:
    """Where calendar days, weeks (from Monday), months, quarters and years are counted from."""
    day = 5 if interval == "week" else 1
    return EPOCH.replace(day=day, tzinfo=zone(timezone)).astimezone(EPOCH.tzinfo)


async def _begin(tx: Tx, user_id: str, current: Terms, wanted: Terms, now: datetime) -> Terms:
    """Add the terms; they start after those before them, or two rows would have one key."""
    starts_at = max(wanted.starts_at, current.starts_at + MICROSECOND)
    if wanted.anchor_at == wanted.starts_at:
        wanted = wanted._replace(anchor_at=starts_at)
    wanted = wanted._replace(starts_at=starts_at)
    row = {
        "user_id": user_id,
        "starts_at": starts_at,
        "plan_id": wanted.plan_id,
        "anchor_at": wanted.anchor_at,
        "interval": wanted.interval,
        "timezone": wanted.timezone,
        "created_at": now,
    }
    await tx.run(insert(Subscription), [row])
    await announce(tx, "subscriptions", user_id, now)
    return wanted
