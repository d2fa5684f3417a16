"""What alerts that are no thresholds say, in messages and to people."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from app.alerts.messages import Raised, Reader, composed, spoken
from app.alerts.notices import ANOMALY, FORECAST, Notice, said, shown, threshold_out
from app.alerts.outlook import day_of
from tests.conftest import START

MONTH = START.replace(day=1, hour=0, minute=0)


def notice(threshold: int = FORECAST, kind: str = "limit_forecast", scope: str = "all") -> Notice:
    return Notice(
        *(scope, "lim_1", MONTH, threshold, kind, "warning", f"title of {kind}", "message"),
        billing_period="2026-11",
        limit_name="budget",
        metric="cost_usd",
        used=61_200_000_000,
        limit=10**11,
        more={"passes_at": "2026-11-21T14:10:00Z"},
    )


def test_a_message_has_no_threshold_where_there_is_none_and_the_facts_of_its_kind() -> None:
    message = composed([Raised("a", notice())], START)[0]
    assert (message.type, message.event_types) == (
        *("alert.limit_forecast", frozenset({"alert.limit_forecast"})),
    )
    alert = json.loads(message.payload)["data"]["alerts"][0]
    assert alert == {
        **{"id": "a", "limit_id": "lim_1", "limit_name": "budget", "metric": "cost_usd"},
        **{"used": "61.2", "limit": "100", "threshold": None, "type": "limit_forecast"},
        **{"severity": "warning", "title": "title of limit_forecast", "message": "message"},
        **{"window_start": "2026-11-01T00:00:00Z", "billing_period": "2026-11"},
        **{"created_at": "2026-11-20T12:30:00Z", "passes_at": "2026-11-21T14:10:00Z"},
    }
    assert spoken(message.payload) == (
        "title of limit_forecast (everyone)",
        "title of limit_forecast: message",
    )


def test_a_threshold_comes_before_other_kinds_in_what_people_read() -> None:
    kinds = [notice(ANOMALY, "usage_anomaly"), notice(100, "limit_reached"), notice()]
    found = composed([Raised(str(n), one) for n, one in enumerate(kinds)], START)
    assert [one.type for one in found] == ["alert.limit_reached"]
    assert spoken(found[0].payload)[0] == "title of limit_reached (everyone)"
    assert Reader("wh", frozenset({"alert.usage_anomaly"}), "all").wants(found[0])
    assert not Reader("wh", frozenset({"alert.limit_recovered"}), "all").wants(found[0])


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 21, 14, 10, tzinfo=UTC), "on the 21st at about 14:00 UTC"),
        (datetime(2026, 11, 21, 23, 40, tzinfo=UTC), "on the 22nd at about 00:00 UTC"),
        (datetime(2026, 11, 23, 0, 29, tzinfo=UTC), "on the 23rd at about 00:00 UTC"),
        (datetime(2026, 11, 24, 9, 30, tzinfo=UTC), "on the 24th at about 10:00 UTC"),
        (datetime(2026, 12, 3, 9, 0, tzinfo=UTC), "on 3 December at about 09:00 UTC"),
        (datetime(2027, 1, 2, 9, 0, tzinfo=UTC), "on 2 January 2027 at about 09:00 UTC"),
    ],
)
def test_a_day_is_said_as_people_say_it(moment: datetime, text: str) -> None:
    assert day_of(moment, START) == text


def test_the_eleventh_to_the_thirteenth_end_as_others_do_not() -> None:
    days = [day_of(MONTH + timedelta(days=day - 1), START).split(" at")[0] for day in (11, 12, 13)]
    assert days == ["on the 11th", "on the 12th", "on the 13th"]


def test_amounts_are_shown_exactly_and_said_with_their_unit() -> None:
    assert (shown("cost_usd", 1_500_000_000), shown("calls", 7)) == ("1.5", 7)
    assert said("cost_usd", 1234 * 10**9) == "$1,234"
    assert said("input_tokens", 1234567) == "1,234,567 input tokens"
    assert (threshold_out(80), threshold_out(FORECAST), threshold_out(ANOMALY)) == (80, None, None)
