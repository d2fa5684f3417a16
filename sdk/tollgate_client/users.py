"""For whom calls are made just now, where nobody says so at the call itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_acting_for: ContextVar[str | None] = ContextVar("tollgate_user", default=None)


@contextmanager
def acting_for(user_id: str) -> Iterator[None]:
    """Within the block, calls of metered clients are this user's; follows tasks and contexts."""
    token = _acting_for.set(user_id)
    try:
        yield
    finally:
        _acting_for.reset(token)


def current_user() -> str | None:
    """The user of the block around, if there is one."""
    return _acting_for.get()
