"""The prices in force, in memory; replaced whole when they change, never changed in place."""

from collections.abc import Mapping

from app.db.engine import Tx
from app.pricing.catalog import Catalog
from app.pricing.guard import medians
from app.pricing.leaves import Rate
from app.pricing.names import provider_id
from app.pricing.rows import PriceList
from app.pricing.store import active_version, load_aliases, load_list, load_overrides

NOTHING = PriceList("", (), ())


class Prices:
    """Holds the catalogue that every price is asked of.

    Operators' prices and aliases are read whenever any price changed, the price list only where
    another version is in force. A list that is given stays until the database has one.
    """

    __slots__ = ("_medians", "_providers", "_reloads", "catalog")

    def __init__(self, catalog: Catalog | None = None) -> None:
        self.catalog = catalog or Catalog(NOTHING)
        self._reloads = 0
        self._medians: tuple[PriceList, Mapping[str, Rate]] | None = None
        self._providers: tuple[PriceList, frozenset[str]] | None = None

    @property
    def are_known(self) -> bool:
        """Whether there is a price list at all."""
        return bool(self.catalog.price_list.listings)

    def usual(self) -> Mapping[str, Rate]:
        """The median rate of each unit in the price list."""
        price_list = self.catalog.price_list
        if self._medians is None or self._medians[0] is not price_list:
            self._medians = (price_list, medians(price_list))
        return self._medians[1]

    def label_of(self, provider: str) -> str:
        """The catalogue's name of a provider; `other` for one whose models it does not list."""
        price_list = self.catalog.price_list
        if self._providers is None or self._providers[0] is not price_list:
            known = frozenset(one.provider for one in price_list.listings)
            self._providers = (price_list, known)
        if provider in self._providers[1]:
            return provider
        found = provider_id(provider)
        return found if found in self._providers[1] else "other"

    async def reload(self, tx: Tx, _changed: set[str]) -> None:
        """Take over what changed."""
        self._reloads += 1
        reloads = self._reloads
        version = await active_version(tx)
        fresh: PriceList | None = None
        if version is not None and version.id != self.catalog.version:
            fresh = await load_list(tx, version.id)
        overrides, aliases = await load_overrides(tx), await load_aliases(tx)
        if reloads != self._reloads:
            return  # a later reload, which sees more, has the word
        if fresh is None:
            self.catalog = self.catalog.with_changes(overrides, aliases)
        else:
            self.catalog = Catalog(fresh, overrides, aliases)
