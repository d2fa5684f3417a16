"""What the pages of one user have in common: who may look, and the tabs around each."""

from typing import Any

from app.access.api import printable
from app.core.errors import Forbidden, InvalidInput
from app.dashboard import shown
from app.dashboard.deps import Viewer

USER = "/dashboard/users/{user_id:path}"
TABS = (
    ("usage", "Usage", ""),
    ("events", "Events", "/events"),
    ("alerts", "Alerts", "/alerts"),
    ("periods", "Subscription & periods", "/periods"),
    ("holds", "Holds", "/holds"),
)


def home_of(user_id: str) -> str:
    """Where the pages of a user are."""
    return shown.user_href(user_id)


def allowed(viewer: Viewer, user_id: str) -> str:
    """The user that the viewer may look at.

    Raises:
        Forbidden: the key is bound to another user.
        InvalidInput: no user can be called that.
    """
    if viewer.user_id not in (None, user_id):
        raise Forbidden("this key is bound to another user", elsewhere=home_of(viewer.user_id))
    try:
        return printable(user_id) or ""
    except ValueError:
        raise InvalidInput.at("/user_id", "must be printable text") from None


def around(viewer: Viewer, user_id: str, tab: str, unread: int, query: str = "") -> dict[str, Any]:
    """What every page of a user shows around its own part."""
    home = home_of(user_id)
    named = {"alerts": f"Alerts ({unread})"} if unread else {}
    return {
        "user_id": user_id,
        "home": home,
        "tab": tab,
        "tabs": [
            (key, named.get(key, name), f"{home}{path}{f'?{query}' if query else ''}")
            for key, name, path in TABS
        ],
        "may_manage": viewer.user_id is None and viewer.key.may("manage"),
        "may_check": viewer.key.may("check"),
    }
