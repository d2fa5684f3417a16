"""Several processes count together: what each wrote is one page, and nothing ever goes back."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.core.clock import FrozenClock
from app.metrics.figures import Figures
from app.metrics.text import page
from app.metrics.workers import GONE_AFTER_S, WRITTEN_EVERY_S, Workers

pytestmark = pytest.mark.anyio
START = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


class Worker:
    """One process's part, as it is in all of them."""

    def __init__(self, clock: FrozenClock, folder: Path) -> None:
        self.figures = Figures(clock)
        self.workers = Workers(self.figures, clock, str(folder))

    async def shown(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of one name by the values of their labels."""
        text = page(self.figures.families, await self.workers.gather(), open_metrics=False)
        return {
            tuple(one.labels.values()): one.value
            for family in text_string_to_metric_families(text.decode())
            for one in family.samples
            if one.name == name
        }


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(START)


async def test_counts_and_spreads_of_all_workers_are_added(
    clock: FrozenClock, tmp_path: Path
) -> None:
    one, two = Worker(clock, tmp_path), Worker(clock, tmp_path)
    one.figures.cost.add("openai", by=1)
    two.figures.cost.add("openai", by=2**53 + 2)
    one.figures.commits.add(0.002, "events")
    two.figures.commits.add(7.0, "events")
    await two.workers.gather()
    assert await one.shown("tollgate_cost_usd_total") == {("openai",): (2**53 + 3) / 10**9}
    assert await one.shown("tollgate_commit_seconds_sum") == {("events",): 7.002}
    buckets = await one.shown("tollgate_commit_seconds_bucket")
    assert buckets["events", "0.001"] == 0
    assert buckets["events", "0.0025"] == 1
    assert buckets["events", "5.0"] == 1
    assert buckets["events", "+Inf"] == 2
    assert await one.shown("tollgate_workers") == {(): 2}


async def test_what_one_page_showed_no_later_page_takes_back(
    clock: FrozenClock, tmp_path: Path
) -> None:
    one, two = Worker(clock, tmp_path), Worker(clock, tmp_path)
    seen = 0.0
    for turn in range(6):
        asked, other = (one, two) if turn % 2 else (two, one)
        asked.figures.checks.add("allowed")
        other.figures.checks.add("allowed")  # not written down until it is asked itself
        shown = (await asked.shown("tollgate_checks_total"))["allowed",]
        assert shown >= seen
        seen = shown


async def test_levels_are_joined_as_they_mean_it(clock: FrozenClock, tmp_path: Path) -> None:
    one, two = Worker(clock, tmp_path), Worker(clock, tmp_path)
    for worker, version, queued in ((one, 4, 10), (two, 3, 5)):
        worker.figures.config_version.read(lambda version=version: version)  # type: ignore[misc]
        worker.figures.queued.set(queued, "events")
    two.figures.proof(False, 3)
    clock.advance(timedelta(seconds=1))
    one.figures.proof(True, 0)
    await one.workers.gather()
    assert await two.shown("tollgate_config_version") == {(): 3}
    assert await two.shown("tollgate_intake_queued_calls") == {("events",): 15}
    assert await two.shown("tollgate_consistent") == {(): 1}


async def test_a_worker_that_is_gone_leaves_its_counts_and_no_levels(
    clock: FrozenClock, tmp_path: Path
) -> None:
    dead, left, alive = (Worker(clock, tmp_path) for _ in range(3))
    for worker in (dead, left, alive):
        worker.figures.checks.add("denied", by=5)
    await dead.workers.gather()
    left.workers.start()
    await left.workers.close()
    assert await alive.shown("tollgate_workers") == {(): 2}
    clock.advance(timedelta(seconds=GONE_AFTER_S + WRITTEN_EVERY_S))
    assert await alive.shown("tollgate_workers") == {(): 1}
    assert await alive.shown("tollgate_checks_total") == {("denied",): 15}


async def test_half_a_file_is_never_read(clock: FrozenClock, tmp_path: Path) -> None:
    one = Worker(clock, tmp_path)
    await one.workers.gather()
    assert [Path(name).suffix for name in os.listdir(tmp_path)] == [".json"]
    (tmp_path / "left behind.tmp").write_text("[1, {")
    assert await one.shown("tollgate_workers") == {(): 1}


async def test_one_process_needs_no_folder(clock: FrozenClock, tmp_path: Path) -> None:
    before = os.listdir(tmp_path)
    figures = Figures(clock)
    alone = Workers(figures, clock, "")
    alone.start()
    figures.checks.add("allowed")
    [found] = await alone.gather()
    assert found["tollgate_checks"][0].value == 1
    await alone.close()
    assert os.listdir(tmp_path) == before
