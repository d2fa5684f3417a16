"""The price catalogue: asked for every call, never over the network."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from app.core.counters import Usage
from app.core.money import to_usd
from app.pricing.book import Book
from app.pricing.compose import compose
from app.pricing.conditions import Conditions, conditions_of
from app.pricing.entries import Period
from app.pricing.memo import Memo
from app.pricing.names import LONGEST_NAME, provider_id
from app.pricing.plan import NO_PLAN, Plan, plan_for
from app.pricing.rows import Alias, Override, PriceList
from app.pricing.shelves import Shelves

DEFAULT_MODELS: Mapping[str, str] = {
    "anthropic": "claude-3.5-sonnet",
    "google": "gemini-2.5-flash",
    "huggingface": "openai/gpt-oss-120b:groq",
    "mistral": "huggingface/openai/gpt-oss-120b:groq",
    "openai": "gpt-4o-mini",
}
"""What a call without a model is priced as; a guess, so such a quote is `estimated`."""
MEMO_SIZE = 8_192
_LONGEST_CONDITION = 64


class Quote(NamedTuple):
    """A cost in nano-dollars or None, how far it can be trusted, and the rows and tier it is by.

    Status: `priced`, `estimated` (a name, condition or count had to be guessed) or `unpriced`.
    `price_ref` is the id of the base row, `+id` of each that changed it, ` input>N` of the tier.
    """

    cost_nanos: int | None
    status: str
    price_ref: str


UNPRICED = Quote(None, "unpriced", "")


class RateShown(NamedTuple):
    """A rate for people: decimal US dollars per block, from each threshold on.

    Thresholds are of the total input for tokens, of the unit's own quantity for others and where a
    rate is graduated. `row` is the id of the row that states it.
    """

    unit: str
    counter: str
    per: int
    usd: tuple[tuple[int, str], ...]
    graduated: bool = False
    row: str = ""


class Resolution(NamedTuple):
    """Which entry a spelling means at an instant, by which rule, and what the entry charges."""

    provider: str
    model: str
    name: str
    rule: str
    sure: bool
    period: Period
    thresholds: tuple[int, ...]
    rates: tuple[RateShown, ...]
    price_ref: str
    layer: str = ""


class Catalog:
    """Prices by provider, model, instant and conditions; immutable, but for a bounded memo.

    Prices are compiled when they are first asked for.
    """

    def __init__(
        self,
        price_list: PriceList,
        overrides: Sequence[Override] = (),
        aliases: Sequence[Alias] = (),
        defaults: Mapping[str, str] = DEFAULT_MODELS,
    ) -> None:
        self._open(Shelves(price_list), overrides, aliases, defaults)

    def _open(
        self,
        shelves: Shelves,
        overrides: Sequence[Override],
        aliases: Sequence[Alias],
        defaults: Mapping[str, str],
    ) -> None:
        self.version = shelves.price_list.version
        self.overrides, self.aliases = tuple(overrides), tuple(aliases)
        self._shelves = shelves
        self._book = Book(overrides, aliases, shelves.lends)
        self._defaults = {provider_id(name): model for name, model in defaults.items()}
        self._users, self._teams = self._book.users, self._book.teams
        self._owned = bool(self._users or self._teams)
        self._memo: Memo[tuple[object, ...], Plan] = Memo(MEMO_SIZE)
        self._condition_names = frozenset(shelves.conditions | self._book.conditions)

    @classmethod
    def from_packages(
        cls, overrides: Sequence[Override] = (), aliases: Sequence[Alias] = ()
    ) -> "Catalog":
        """The prices that come with this release."""
        return cls(_packaged(), overrides, aliases)

    @property
    def price_list(self) -> PriceList:
        """What this catalogue was made of."""
        return self._shelves.price_list

    def with_changes(self, overrides: Sequence[Override], aliases: Sequence[Alias]) -> "Catalog":
        """The same prices under another operator's word; what was compiled is shared."""
        other = Catalog.__new__(Catalog)
        other._open(self._shelves, overrides, aliases, self._defaults)
        return other

    def compile_all(self) -> None:
        """Compile every price once and keep none of them.

        Raises:
            ValueError: a row of the price list or an override means nothing.
        """
        for entry in (*self._shelves.entries(), *self._shelves.adding()):
            entry.check()
        for stated in self._book.all():
            stated.check()

    def quote(
        self,
        provider: str | None,
        model: str | None,
        at: datetime,
        usage: Usage,
        context: Mapping[str, str] | None = None,
        user_id: str | None = None,
        team_id: str | None = None,
    ) -> Quote:
        """Price a checked usage at an aware instant.

        A call whose context says `usage: unknown` has no price: what it used was not told.

        Raises:
            OverflowError: the cost passes $9.2 billion.
        """
        key: tuple[object, ...] = (provider, model)
        if context:
            if context.get("usage") == "unknown":
                return UNPRICED
            key = (provider, model, *self._relevant(context))
        if self._owned and (user_id in self._users or team_id in self._teams):
            user = user_id if user_id in self._users else None
            key = (*key, user, team_id if team_id in self._teams else None)
        plan = self._memo.get(key)
        if plan is None:
            plan = self.plan(provider, model, context, user_id, team_id)
            if len(provider or "") <= LONGEST_NAME and len(model or "") <= LONGEST_NAME:
                self._memo.put(key, plan)
        price = plan.always or plan.nearest(at)
        if price is not None:
            nanos, ref, sure = price.cost(usage)
            if sure:
                return tuple.__new__(Quote, (nanos, "priced", ref))  # 0.1 us less than Quote(...)
        chosen = plan.chosen(at, usage)
        if chosen is None:
            return UNPRICED
        _, period, good = chosen
        nanos, ref, sure = period.price.cost(usage)  # type: ignore[union-attr]
        return Quote(nanos, "priced" if sure and good else "estimated", ref)

    def resolve(
        self,
        provider: str | None,
        model: str | None,
        at: datetime,
        context: Mapping[str, str] | None = None,
        user_id: str | None = None,
        team_id: str | None = None,
    ) -> Resolution | None:
        """Tell which entry a spelling means, why, and what it charges; None where none is known."""
        chosen = self.plan(provider, model, context, user_id, team_id).chosen(at, None)
        if chosen is None:
            return None
        link, period, sure = chosen
        price = period.price
        if price is None:
            return None
        origins = compose(period.rows).origins
        rates = tuple(
            RateShown(
                each.leaf.unit,
                each.leaf.counter,
                each.rate.per,
                tuple((max(step.above, 0), to_usd(step.nanos)) for step in each.rate.steps),
                each.rate.graduated,
                origins[each.name],
            )
            for each in price.rates()
        )
        return Resolution(
            link.provider,
            link.model,
            link.name,
            link.rule,
            sure,
            period,
            tuple(tier.above for tier in price.tiers[1:]),
            rates,
            price.tiers[0].ref,
            link.layer,
        )

    def models(self) -> Iterator[tuple[str, str, str]]:
        """Every (provider, model id, name) once, in the order of the source, best layer first."""
        seen = set()
        for entry in self._shelves.entries():
            listing = entry.listing
            key = (listing.provider, listing.model)
            if key not in seen and listing.model != "*":
                seen.add(key)
                yield listing.provider, listing.model, listing.name

    def plan(
        self,
        provider: str | None,
        model: str | None,
        context: Mapping[str, str] | None = None,
        user_id: str | None = None,
        team_id: str | None = None,
    ) -> Plan:
        """Look a spelling up, without the memo."""
        if len(provider or "") > LONGEST_NAME or len(model or "") > LONGEST_NAME:
            return NO_PLAN
        said: Conditions = conditions_of(dict(self._relevant(context or {})))
        return plan_for(
            self._shelves, self._book, self._defaults, provider, model, said, user_id, team_id
        )

    def _relevant(self, context: Mapping[str, str]) -> list[tuple[str, str]]:
        """The conditions that can move a price; a caller's own are not looked at."""
        known = self._condition_names
        return [
            (name, value[:_LONGEST_CONDITION]) for name, value in context.items() if name in known
        ]


@lru_cache(maxsize=1)
def _packaged() -> PriceList:
    """Read once a process: only what serves no calls asks for it."""
    from app.pricing.packages import read_packages  # noqa: PLC0415  (41 MB: not for serving)

    return read_packages()
