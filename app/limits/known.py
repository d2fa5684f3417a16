"""Limits in memory, loaded scope by scope when first needed and dropped when theirs change."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple

from app.db.engine import Tx
from app.db.types import instant, table_of
from app.db.upsert import Find
from app.limits.match import means
from app.limits.tables import Limit

CAPACITY = 200_000
METRICS = ("calls", "tokens", "input_tokens", "output_tokens", "cost_usd")
ACTIONS = ("block", "warn", "shadow")


class Rule(NamedTuple):
    """A limit as the river sees it. `amount` is in whole units, nano-dollars for cost."""

    id: str
    name: str
    scope_key: str
    provider: str | None
    model: str | None
    endpoint: str | None
    metric: str
    window: str
    timezone: str
    amount: int | None
    action: str
    thresholds: tuple[int, ...]
    created_at: datetime
    counts_from: datetime
    raised_amount: int | None = None
    raised_until: datetime | None = None

    def in_force(self, now: datetime) -> "Rule":
        """The limit as it is judged at an instant: with the raised amount until that ends.

        `raised_until` is None in what is not raised then.
        """
        if self.raised_until is None:
            return self
        if self.raised_until <= now:
            return self._replace(raised_until=None)
        return self._replace(amount=self.raised_amount)

    def matches(self, provider: str | None, model: str | None, endpoint: str | None) -> bool:
        """Whether a call counts towards this limit."""
        if self.endpoint is not None and self.endpoint != endpoint:
            return False
        if self.provider is None and self.model is None:
            return True
        return means(self.provider, self.model, provider or "", model or "")

    def counter_scope(self, user_id: str) -> str:
        """Whose counter it is: a plan's limit counts for each user alone."""
        return f"user:{user_id}" if self.scope_key.startswith("plan:") else self.scope_key


_find = Find(table_of(Limit), ("scope_key",), Rule._fields)


def rule_of(row: Iterable[object]) -> Rule:
    """A stored limit, as the driver or SQLAlchemy gives it."""
    values = Rule(*row)  # type: ignore[arg-type]
    text: str = values.thresholds  # type: ignore[assignment]
    return values._replace(
        thresholds=tuple(int(part) for part in text.split(",") if part),
        created_at=instant(values.created_at),
        counts_from=instant(values.counts_from),
        raised_until=None if values.raised_until is None else instant(values.raised_until),
    )


class Rules:
    """The cache: rules by scope key; an empty tuple is knowledge too."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Rule, ...]] = {}
        self._reloads = 0

    async def reload(self, _tx: Tx, changed: set[str]) -> None:
        """Forget the scopes named; they are read again when next needed."""
        self._reloads += 1
        if "*" in changed:
            self._known.clear()
        for scope_key in changed:
            self._known.pop(scope_key, None)

    async def load(self, tx: Tx, scope_keys: Collection[str]) -> None:
        """Have these scopes in memory. What was read while something changed is read again."""
        while missing := sorted(key for key in scope_keys if key not in self._known):
            reloads = self._reloads
            found: dict[str, list[Rule]] = {key: [] for key in missing}
            for row in await _find(tx, [(key,) for key in missing]):
                rule = rule_of(row)
                found[rule.scope_key].append(rule)
            if reloads != self._reloads:
                continue
            if len(self._known) + len(found) > CAPACITY:
                kept = {key: self._known[key] for key in scope_keys if key in self._known}
                self._known = kept
            for key, rules in found.items():
                self._known[key] = tuple(sorted(rules, key=lambda rule: (rule.created_at, rule.id)))

    def of(
        self, user_id: str, plan_id: str, team_id: str | None, api_key_id: str | None
    ) -> tuple[Rule, ...]:
        """Every rule that may apply to a call of this user; most specific scope first."""
        known = self._known
        found = known[f"user:{user_id}"]
        if api_key_id is not None:
            found += known[f"key:{api_key_id}"]
        if team_id is not None:
            found += known[f"team:{team_id}"]
        return found + known[f"plan:{plan_id}"] + known["all"]


def scope_keys(
    user_id: str, plan_id: str, team_id: str | None, api_key_id: str | None
) -> Iterable[str]:
    """The scopes whose rules `Rules.of` will look up."""
    yield "all"
    yield f"user:{user_id}"
    yield f"plan:{plan_id}"
    if team_id is not None:
        yield f"team:{team_id}"
    if api_key_id is not None:
        yield f"key:{api_key_id}"
