"""The clients' requests were recorded on this day."""

from datetime import UTC, datetime

import pytest

from app.core.clock import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(datetime(2026, 11, 21, 0, 30, tzinfo=UTC))
