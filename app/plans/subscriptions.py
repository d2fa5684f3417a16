"""Plans, and who agreed to which, in which periods, since when."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, insert, literal, or_, select, true, tuple_, update

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
    on_it = or_(Subscription.plan_id == plan_id, Subscription.fallback_plan_id == plan_id)
    if await tx.first(select(Subscription.user_id).where(on_it).limit(1)) is not None:
        raise Conflict("somebody is, was or will be subscribed to this plan")
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
    """What somebody wants to agree to; what is None stays as it is.

    `expires_at` counts only with `says_expiry`, so that it can also be taken away.
    """

    plan_id: str
    anchor_at: datetime | None
    timezone: str | None
    interval: str | None
    says_expiry: bool = False
    expires_at: datetime | None = None
    on_expiry: str | None = None


async def terms_of(tx: Tx, user_id: str, now: datetime) -> Terms | None:
    """The newest terms of a user (they may start ahead), or None for one never seen.

    What expired is followed by what is in force instead.
    """
    agreement = (await load(tx, [user_id])).get(user_id)
    return None if agreement is None else agreement.terms_at(max(now, agreement.newest.starts_at))


async def subscribe(
    tx: Tx, user_id: str, wish: Wish, *, earliest: datetime, starts_at: datetime, now: datetime
) -> Terms:
    """Agree to terms and return them.

    A user without any terms, who therefore has no events either, gets them for all time, so that
    periods are counted from the anchor both ways. Whoever has terms keeps them until `starts_at`,
    which is not before `earliest` (see `limits/manage.next_start`); there a new period starts. What
    was to start after `earliest` is superseded. Terms that are in force already are not agreed to
    twice: asking again changes nothing, and another expiry alone starts no period.

    Raises:
        InvalidInput: no such plan; an expiry that does not lie ahead, or what is to be without one.
    """
    if await find_plan(tx, wish.plan_id) is None:
        raise InvalidInput.at("/plan_id", "no such plan")
    scheduled = (Subscription.user_id == user_id, Subscription.starts_at > earliest)
    await tx.run(delete(Subscription).where(*scheduled))
    agreement = (await load(tx, [user_id])).get(user_id)
    current = None if agreement is None else agreement.terms_at(starts_at)
    wanted = wanted_terms(current, wish, (await default_plan(tx)).id)
    if wish.expires_at is not None and wish.expires_at <= starts_at:
        raise InvalidInput.at("/expires_at", "must lie ahead, and after the last event recorded")
    if wish.on_expiry is not None and wanted.expires_at is None:
        raise InvalidInput.at("/on_expiry", "say when the subscription expires: expires_at")
    if agreement is None or current is None:
        await _insert(tx, user_id, wanted, now)
    elif wanted == current._replace(ends_at=FAR):
        await announce(tx, "subscriptions", user_id, now)  # what was scheduled may be gone
    elif _only_expiry_differs(wanted, current) and _may_move(current, agreement.newest, earliest):
        await _move_expiry(tx, user_id, wanted, now)
    else:
        wanted = await _begin(tx, user_id, current, wanted._replace(starts_at=starts_at), now)
    return (await load(tx, [user_id]))[user_id].terms_at(max(now, wanted.starts_at))


async def renew(tx: Tx, user_id: str, *, starts_at: datetime, now: datetime) -> Terms:
    """Start a new period at `starts_at`, counted from there, on the terms in force.

    An expiry that has passed is over: what was refused is allowed again.
    """
    agreement = (await load(tx, [user_id])).get(user_id)
    if agreement is None:
        current = calendar_months((await default_plan(tx)).id)
        await subscribe_new(tx, [user_id], current, now)
    else:
        while any(terms.starts_at == starts_at for terms in agreement.terms):
            starts_at += MICROSECOND
        current = agreement.terms_at(starts_at)
    wanted = current._replace(starts_at=starts_at, anchor_at=starts_at)
    begun = await _begin(tx, user_id, current, wanted, now)
    return (await load(tx, [user_id]))[user_id].terms_at(begun.starts_at)


def wanted_terms(current: Terms | None, wish: Wish, default_plan_id: str) -> Terms:
    """The wish, completed: by what is in force, else by calendar months in UTC."""
    known = current or calendar_months("")
    interval = wish.interval or known.interval
    timezone = wish.timezone or known.timezone
    anchor = wish.anchor_at
    if anchor is None:
        anchor = known.anchor_at
        if anchor == calendar_anchor(known.interval, known.timezone):
            anchor = calendar_anchor(interval, timezone)
    agreed = Terms(known.starts_at, FAR, wish.plan_id, anchor, interval, timezone)
    expires_at = wish.expires_at if wish.says_expiry else known.expires_at
    if expires_at is None:
        return agreed
    on_expiry = wish.on_expiry or known.on_expiry
    fallback = known.fallback_plan_id or default_plan_id if on_expiry == "fallback" else None
    return agreed._replace(expires_at=expires_at, on_expiry=on_expiry, fallback_plan_id=fallback)


def calendar_anchor(interval: str, timezone: str) -> datetime:
    """Where calendar days, weeks (from Monday), months, quarters and years are counted from."""
    day = 5 if interval == "week" else 1
    return EPOCH.replace(day=day, tzinfo=zone(timezone)).astimezone(EPOCH.tzinfo)


def _only_expiry_differs(wanted: Terms, current: Terms) -> bool:
    return _without_expiry(wanted) == _without_expiry(current)


def _without_expiry(terms: Terms) -> Terms:
    return Terms(*terms[:6])._replace(ends_at=FAR)


def _may_move(current: Terms, newest: Terms, earliest: datetime) -> bool:
    """Whether nothing was counted by the expiry that is: it lies ahead, or ends no period."""
    stored = current.starts_at == newest.starts_at
    expires_at = current.expires_at
    return stored and (
        expires_at is None or expires_at >= earliest or current.on_expiry == "refuse"
    )


async def _move_expiry(tx: Tx, user_id: str, wanted: Terms, now: datetime) -> None:
    same = (Subscription.user_id == user_id, Subscription.starts_at == wanted.starts_at)
    await tx.run(update(Subscription).where(*same).values(**_expiry(wanted)))
    await announce(tx, "subscriptions", user_id, now)


async def _begin(tx: Tx, user_id: str, current: Terms, wanted: Terms, now: datetime) -> Terms:
    """Add the terms; they start after those before them, or two rows would have one key."""
    starts_at = max(wanted.starts_at, current.starts_at + MICROSECOND)
    if wanted.anchor_at == wanted.starts_at:
        wanted = wanted._replace(anchor_at=starts_at)
    if wanted.expires_at is not None and wanted.expires_at <= starts_at:
        wanted = Terms(*wanted[:6])
    wanted = wanted._replace(starts_at=starts_at)
    await _insert(tx, user_id, wanted, now)
    return wanted


async def _insert(tx: Tx, user_id: str, terms: Terms, now: datetime) -> None:
    row = {
        "user_id": user_id,
        "starts_at": terms.starts_at,
        "plan_id": terms.plan_id,
        "anchor_at": terms.anchor_at,
        "interval": terms.interval,
        "timezone": terms.timezone,
        "created_at": now,
    }
    await tx.run(insert(Subscription), [row | _expiry(terms)])
    await announce(tx, "subscriptions", user_id, now)


def _expiry(terms: Terms) -> dict[str, datetime | str | None]:
    return {
        "expires_at": terms.expires_at,
        "on_expiry": terms.on_expiry,
        "fallback_plan_id": terms.fallback_plan_id,
    }
