"""The service at a time when the captured calls have just been made."""

import pytest

from app.core.clock import FrozenClock
from tests.foreign.captured import NOW


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOW)
