"""The price catalogue: compiled once at start, asked for every call, never over the network."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from app.core.counters import Usage
from app.core.money import to_usd
from app.pricing.entries import (
    PRICED_CONDITIONS,
    SEARCH_CONTEXT,
    Condition,
    Entry,
    Period,
    Schedule,
)
from app.pricing.genai import SOURCE, Shop, read_shops
from app.pricing.index import Index
from app.pricing.memo import Memo
from app.pricing.names import (
    GATEWAYS,
    LONGEST_NAME,
    Candidate,
    candidates,
    provider_id,
)

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
    """A cost in nano-dollars or None, how far it can be trusted, and the entry and tier it is by.

    Status: `priced`, `estimated` (a name, condition or count had to be guessed) or `unpriced`.
    """

    cost_nanos: int | None
    status: str
    price_ref: str


UNPRICED = Quote(None, "unpriced", "")


class Plan(NamedTuple):
    """The answer for one spelling under some conditions: an entry's prices, or none."""

    entry: Entry | None
    schedule: Schedule | None
    only: Period | None
    rule: str
    sure: bool


NO_PLAN = Plan(None, None, None, "not in the catalogue", False)


class RateShown(NamedTuple):
    """A rate for people: decimal US dollars per block, from each threshold of total input on."""

    unit: str
    counter: str
    per: int
    usd: tuple[tuple[int, str], ...]


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


class Catalog:
    """Prices by provider, model, instant and conditions; immutable, but for a bounded memo."""

    def __init__(
        self, version: str, shops: Iterable[Shop], default_models: Mapping[str, str]
    ) -> None:
        self.version = version
        shops = list(shops)
        self._indexes = {shop.id: Index(shop) for shop in shops}
        self._lends = {shop.id: shop.lends for shop in shops}
        self._defaults = {provider_id(name): model for name, model in default_models.items()}
        self._defaults_are_guesses = default_models is DEFAULT_MODELS
        self._memo: Memo[tuple[object, ...], Plan] = Memo(MEMO_SIZE)
        conditions = {*PRICED_CONDITIONS, SEARCH_CONTEXT}
        for index in self._indexes.values():
            for entry in index.entries:
                entry.schedule(None)
                for variant in entry.variants:
                    conditions |= {key for key, _ in variant.when}
        self._conditions = tuple(sorted(conditions))
        self._condition_names = frozenset(conditions)

    @classmethod
    def from_genai(cls, default_models: Mapping[str, str] = DEFAULT_MODELS) -> "Catalog":
        """Compile the pinned package's data; defaults that a caller states are not guesses."""
        return cls(SOURCE, read_shops(), default_models)

    def quote(
        self,
        provider: str | None,
        model: str | None,
        at: datetime,
        usage: Usage,
        context: Mapping[str, str] | None = None,
    ) -> Quote:
        """Price a checked usage at an aware instant.

        Raises:
            OverflowError: the cost passes $9.2 billion.
        """
        key: tuple[object, ...] = (provider, model)
        if context and not self._condition_names.isdisjoint(context):
            context = dict(self._relevant(context))
            key = (provider, model, *context.items())
        plan = self._memo.get(key)
        if plan is None:
            plan = self._remembered(key, provider, model, context)
        period = plan.only
        if period is None:
            if plan.schedule is None:
                return UNPRICED
            period = plan.schedule.at(at)
        if period.price is None:
            return UNPRICED
        nanos, ref, sure = period.price.cost(usage)
        if nanos is None:
            return UNPRICED
        status = "priced" if sure and plan.sure and period.sure else "estimated"
        return tuple.__new__(Quote, (nanos, status, ref))  # 0.1 us less than Quote(...)

    def resolve(
        self,
        provider: str | None,
        model: str | None,
        at: datetime,
        context: Mapping[str, str] | None = None,
    ) -> Resolution | None:
        """Tell which entry a spelling means, why, and what it charges; None where none is known."""
        plan = self.plan(provider, model, context)
        if plan.entry is None or plan.schedule is None:
            return None
        period = plan.schedule.at(at)
        if period.price is None:
            return None
        price = period.price
        rates = tuple(
            RateShown(
                leaf.unit,
                leaf.counter,
                rate.per,
                tuple((max(step.above, 0), to_usd(step.nanos)) for step in rate.steps),
            )
            for leaf, rate in price.rates()
        )
        return Resolution(
            plan.entry.provider,
            plan.entry.model,
            plan.entry.name,
            plan.rule,
            plan.sure and period.sure,
            period,
            tuple(tier.above for tier in price.tiers[1:]),
            rates,
            price.tiers[0].ref,
        )

    def models(self) -> Iterator[tuple[str, str, str]]:
        """Every (provider, model id, name), in the order of the source."""
        for provider, index in self._indexes.items():
            for entry in index.entries:
                yield provider, entry.model, entry.name

    def plan(
        self, provider: str | None, model: str | None, context: Mapping[str, str] | None = None
    ) -> Plan:
        """Look a spelling up, without the memo.

        The first spelling that matches decides the entry. A later one can only show that the
        match was not a guess: a pattern finds a model inside an ARN, its last part is the name.
        """
        context = dict(self._relevant(context or {}))
        if not (model and model.strip()):
            return self._default_plan(provider, context)
        best = NO_PLAN
        for candidate in self._spellings(provider, model):
            plan = self._look_up(candidate, context)
            if plan is not None and (best.entry is None or plan.entry is best.entry):
                best = plan
            if best.sure:
                break
        return best

    def _remembered(
        self,
        key: tuple[object, ...],
        provider: str | None,
        model: str | None,
        context: Mapping[str, str] | None,
    ) -> Plan:
        """Look a spelling up and keep the answer, unless its name is too long to be one."""
        if len(provider or "") > LONGEST_NAME or len(model or "") > LONGEST_NAME:
            return NO_PLAN
        plan = self.plan(provider, model, context)
        self._memo.put(key, plan)
        return plan

    def _relevant(self, context: Mapping[str, str]) -> Iterator[Condition]:
        """The conditions that can move a price; a caller's own are not looked at."""
        for name in self._conditions:
            if name in context:
                yield name, context[name][:_LONGEST_CONDITION]

    def _default_plan(self, provider: str | None, context: Mapping[str, str]) -> Plan:
        model = self._defaults.get(provider_id(provider))
        if not model:
            return NO_PLAN
        for named in (provider, None):
            plan = self.plan(named, model, context)
            if plan.entry is not None:
                sure = plan.sure and not self._defaults_are_guesses
                return plan._replace(rule="default model of the provider", sure=sure)
        return NO_PLAN

    def _spellings(self, provider: str | None, model: str) -> Iterator[Candidate]:
        yield from candidates(provider, model, self._indexes.__contains__, self._lends)
        if provider_id(provider) not in GATEWAYS:
            return
        name = model.strip().lower()
        if len(name) > LONGEST_NAME:
            return
        for host, index in self._indexes.items():
            if index.recognises(name):
                for candidate in candidates(host, name, self._indexes.__contains__, self._lends):
                    yield candidate._replace(rule="provider told by the model", sure=False)
                return

    def _look_up(self, candidate: Candidate, context: Mapping[str, str]) -> Plan | None:
        """Find a candidate with its provider, then with those whose models that provider serves."""
        for host in (candidate.provider, *self._lends.get(candidate.provider, ())):
            index = self._indexes.get(host)
            found = index.find(candidate.model) if index else None
            if found is not None:
                entry, exact = found
                schedule = entry.schedule(context, foreign=host != candidate.provider)
                rule = candidate.rule if exact else f"{candidate.rule}, beyond the known spelling"
                return Plan(entry, schedule, schedule.only, rule, candidate.sure and exact)
        return None
