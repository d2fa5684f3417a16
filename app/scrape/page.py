"""Everything that one page shows: what all workers counted, and what the database says."""

import asyncio

from app.metrics.figures import Figures
from app.metrics.text import page
from app.metrics.workers import Workers
from app.scrape.stored import Stored


class Scrape:
    """Gathers and writes the page. `mode` says for whom: `open`, `key` or `off`."""

    def __init__(self, figures: Figures, workers: Workers, stored: Stored, mode: str) -> None:
        self.mode = mode
        self._figures, self._workers, self._stored = figures, workers, stored

    async def page(self, *, open_metrics: bool) -> bytes:
        """The page as it is now; it is there whatever has become of the database."""
        snapshots = [*await self._workers.gather(), await self._stored.snapshot()]
        families = (*self._figures.families, *self._stored.families)
        return await asyncio.to_thread(page, families, snapshots, open_metrics=open_metrics)
