"""Every price that may answer a spelling, in the order in which they are asked."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from app.core.counters import Usage
from app.pricing.book import Book, Stated
from app.pricing.conditions import Conditions
from app.pricing.entries import Period, Schedule
from app.pricing.names import provider_id, spelled
from app.pricing.rates import Price
from app.pricing.shelves import Hit, Shelves


class Link(NamedTuple):
    """One price over time, which model it is of, and why it was asked.

    An operator's is `final`: where it holds, nothing behind it is asked. `sure` is false where the
    name had to be guessed.
    """

    schedule: Schedule
    only: Period | None
    sure: bool
    final: bool
    rule: str
    layer: str
    provider: str
    model: str
    name: str

    def at(self, moment: datetime) -> Period:
        """The period an aware instant falls in."""
        return self.only or self.schedule.at(moment)


class Plan(NamedTuple):
    """The prices for one spelling under some conditions: exact ones, guesses, and defaults.

    `always` is the first one's, where it is sure and the same at every instant.
    """

    links: tuple[Link, ...]
    guesses: tuple[Link, ...]
    defaults: tuple[Link, ...]
    always: Price | None = None

    def nearest(self, at: datetime) -> Price | None:
        """The first price that holds at an instant, if nothing about it is a guess."""
        for link in self.links:
            period = link.only or link.schedule.at(at)
            if period.price is not None:
                return period.price if period.sure and link.sure else None
        return None

    def chosen(self, at: datetime, usage: Usage | None) -> tuple[Link, Period, bool] | None:
        """The price that a call is charged at, and whether nothing about it is a guess.

        The first that answers all conditions of the call and has a rate for every unit of the
        usage; failing that, the first that has one for every unit. One without any history does
        not answer for an instant at which a better one, whose prices change, had others. Without a
        usage the units do not matter; None where no price fits.
        """
        for links in (self.links, self.guesses, self.defaults):
            second: tuple[Link, Period, bool] | None = None
            known: Period | None = None
            answered = False
            for link in links:
                period = link.at(at)
                if period.price is None:
                    continue
                cost, _, sure = (0, "", True) if usage is None else period.price.cost(usage)
                answers = period.sure and not (link.only and _differ(known, period))
                if cost is not None and answers and sure:
                    return link, period, link.sure
                if cost is not None and (second is None or (answers and not answered)):
                    second, answered = (link, period, False), answers
                if link.final:
                    if cost is None:
                        return second
                    break
                if known is None and period.end is not None:
                    known = period
            if second is not None:
                return second
        return None

    def first(self, at: datetime) -> tuple[Link, Period] | None:
        """The nearest price that holds at an instant, whatever it has rates for."""
        for link in (*self.links, *self.guesses, *self.defaults):
            period = link.at(at)
            if period.price is not None:
                return link, period
        return None


def _differ(known: Period | None, other: Period) -> bool:
    """Whether two prices state the same unit at different rates before any condition."""
    if known is None:
        return False
    stated = dict(known.rows[0].rates)
    return any(stated.get(name, rate) != rate for name, rate in other.rows[0].rates)


NO_PLAN = Plan((), (), ())


def plan_for(
    shelves: Shelves,
    book: Book,
    guessed_models: Mapping[str, str],
    provider: str | None,
    model: str | None,
    said: Conditions,
    user_id: str | None,
    team_id: str | None,
) -> Plan:
    """Gather the prices for a spelling.

    An alias decides the name before anything else; without a model there is the operator's default
    model, and failing that a guess.
    """
    written, told = spelled(provider, model, shelves.lends), bool((model or "").strip())
    target, sure = book.resolved(written), True
    if target is None and not told:
        target, sure = guessed_models.get(provider_id(provider)), False
    names = written
    if target is None:
        hits = shelves.find(provider, model or "")
    else:
        names = [*written, *spelled(provider, target, shelves.lends)]
        names += spelled(None, target, shelves.lends)
        reason = "alias" if told else "default model of the provider"
        hits = [
            hit._replace(rule=f"{reason}, {hit.rule}", sure=hit.sure and sure)
            for hit in _hits_of_target(shelves, provider, target)
        ]
    links = [
        _stated(one, rule, sure or one.means(written, said))
        for one, rule in book.stated(names, said, user_id, team_id)
    ]
    links += [_listed(hit, said) for hit in hits if hit.sure]
    defaults = [
        _stated(one, "default price", False)._replace(final=False)
        for one in book.defaults(names, said, user_id, team_id)
    ]
    defaults += [_listed(hit, said) for hit in shelves.defaults(name for name, _ in written)]
    guesses = [_listed(hit, said) for hit in hits if not hit.sure]
    first = links[0].only if links and links[0].sure else None
    always = first.price if first is not None and first.sure else None
    return Plan(tuple(links), tuple(guesses), tuple(defaults), always)


def _hits_of_target(shelves: Shelves, provider: str | None, target: str) -> list[Hit]:
    """What an alias stands for: a model of the same provider, or `provider/model`."""
    own = shelves.find(provider, target)
    if any(hit.sure for hit in own):
        return own
    return shelves.find(None, target) or own


def _listed(hit: Hit, said: Conditions) -> Link:
    schedule = hit.entry.schedule(said, hit.added, hit.foreign)
    listing = hit.entry.listing
    return Link(
        schedule,
        schedule.only,
        hit.sure,
        False,
        hit.rule,
        listing.layer,
        listing.provider,
        listing.model,
        listing.name,
    )


def _stated(one: Stated, rule: str, sure: bool) -> Link:
    override = one.override
    return Link(
        one.schedule,
        one.schedule.only,
        sure,
        True,
        rule,
        "override",
        override.provider,
        override.model,
        override.model,
    )
