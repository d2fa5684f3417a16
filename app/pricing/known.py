"""The prices in force, in memory; replaced whole when they change, never changed in place."""

from app.db.engine import Tx
from app.pricing.catalog import Catalog


class Prices:
    """Holds the catalogue that every price is asked of."""

    __slots__ = ("catalog",)

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    async def reload(self, tx: Tx, refs: set[str]) -> None:
        """Take over what changed."""
