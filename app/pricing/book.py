"""What an operator says about prices: overrides, and other names for models."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from app.pricing.compose import check_row
from app.pricing.conditions import Conditions
from app.pricing.entries import Schedule, stated
from app.pricing.names import LONGEST_NAME, provider_id, spelled
from app.pricing.rows import Alias, Override

ANY = "*"
_KINDS = ("exact", "prefix", "regex")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)

Names = Sequence[tuple[str, str]]
"""(Provider, name) pairs, any of which an override may mean."""


class Stated:
    """One override: which calls it is for, and its price over time, compiled when asked for."""

    __slots__ = ("_expression", "_names", "_schedule", "_when", "override", "provider", "rank")

    def __init__(self, override: Override, lends: Mapping[str, Sequence[str]]) -> None:
        self.override = override
        self.provider = provider_id(override.provider)
        self._when: Conditions = frozenset(
            (key, value.strip().lower()) for key, value in override.row.when
        )
        kind = _KINDS.index(override.match)
        name = override.model.strip().lower()
        self._names = {name}
        if kind == 0 and name != ANY:
            pairs = spelled(self.provider, name, lends)
            self._names |= {each for provider, each in pairs if provider == self.provider}
        self._expression = re.compile(override.model, re.IGNORECASE) if kind == 2 else None
        self._schedule: Schedule | None = None
        self.rank = (self.provider == ANY, len(_KINDS) if name == ANY else kind, -len(self._when))

    @property
    def schedule(self) -> Schedule:
        """The price over time."""
        if self._schedule is None:
            self._schedule = stated(self.override.row)
        return self._schedule

    def check(self) -> None:
        """Compile the price and keep nothing.

        Raises:
            ValueError: rates or times that mean nothing.
        """
        check_row(self.override.row)
        stated(self.override.row)

    def means(self, names: Names, said: Conditions) -> bool:
        """Whether a call by one of these names, under these conditions, is meant."""
        if not said.issuperset(self._when):
            return False
        return any(
            self.provider in (ANY, provider) and self._matches(name) for provider, name in names
        )

    def _matches(self, name: str) -> bool:
        if ANY in self._names or name in self._names:
            return True
        if self._expression is not None:
            return len(name) <= LONGEST_NAME and self._expression.fullmatch(name) is not None
        return self.override.match == "prefix" and name.startswith(tuple(self._names))


class Book:
    """All overrides and aliases in force, by whom they are for."""

    __slots__ = ("_aliases", "_defaults", "_everyone", "_teams", "_users", "conditions")

    def __init__(
        self,
        overrides: Iterable[Override],
        aliases: Iterable[Alias],
        lends: Mapping[str, Sequence[str]],
    ) -> None:
        self._users: dict[str, list[Stated]] = {}
        self._teams: dict[str, list[Stated]] = {}
        self._everyone: list[Stated] = []
        self._defaults: list[Stated] = []
        self.conditions: set[str] = set()
        latest = sorted(
            reversed(tuple(overrides)), key=lambda each: each.created_at or _LONG_AGO, reverse=True
        )
        for override in latest:
            one = Stated(override, lends)
            self.conditions.update(key for key, _ in override.row.when)
            if override.default:
                self._defaults.append(one)
            elif override.user_id is not None:
                self._users.setdefault(override.user_id, []).append(one)
            elif override.team_id is not None:
                self._teams.setdefault(override.team_id, []).append(one)
            else:
                self._everyone.append(one)
        for shelf in self._shelves():
            shelf.sort(key=lambda one: one.rank)
        self._aliases = {
            (provider_id(alias.provider), name): alias.resolves_to
            for alias in aliases
            for _, name in spelled(alias.provider, alias.model, lends)
        }

    @property
    def users(self) -> frozenset[str]:
        """Those with a price of their own."""
        return frozenset(one.override.user_id for one in self.all() if one.override.user_id)

    @property
    def teams(self) -> frozenset[str]:
        """Those with a price of their own."""
        return frozenset(one.override.team_id for one in self.all() if one.override.team_id)

    def all(self) -> Iterator[Stated]:
        """Every override, in no order that matters."""
        for shelf in self._shelves():
            yield from shelf

    def _shelves(self) -> list[list[Stated]]:
        return [*self._users.values(), *self._teams.values(), self._everyone, self._defaults]

    def resolved(self, names: Names) -> str | None:
        """What an alias says that one of these names means, or None."""
        for provider, name in names:
            for named in (provider, ANY):
                found = self._aliases.get((named, name))
                if found is not None:
                    return found
        return None

    def stated(
        self, names: Names, said: Conditions, user_id: str | None, team_id: str | None
    ) -> Iterator[tuple[Stated, str]]:
        """The overrides for a call, the first that holds at its instant winning, and why."""
        shelves = (
            (self._users.get(user_id or "", ()), f"override of user {user_id}"),
            (self._teams.get(team_id or "", ()), f"override of team {team_id}"),
            (self._everyone, "override"),
        )
        for shelf, rule in shelves:
            for one in shelf:
                if one.means(names, said):
                    yield one, rule

    def defaults(
        self, names: Names, said: Conditions, user_id: str | None, team_id: str | None
    ) -> Iterator[Stated]:
        """The prices for what nothing else prices, the nearest first."""
        for one in self._defaults:
            theirs = one.override.user_id in (None, user_id)
            if theirs and one.override.team_id in (None, team_id) and one.means(names, said):
                yield one
