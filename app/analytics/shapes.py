"""What answers about everyone's usage have in common: names with their figures, and budgets."""

from typing import Any

from pydantic import BaseModel

from app.analytics.budgets import Budgets
from app.analytics.metrics import ByName, top
from app.core.money import to_usd
from app.summaries.figures import FiguresOut, figures

SHOWN = 10
BUDGETS: dict[str, Any] = {
    "active": 1,
    "exceeded": 0,
    "total_usd": "50",
    "used_usd": "21.6",
    "percent_used": 43.2,
    "highest_percent": 43.2,
    "items": [
        {
            "limit_id": "lim_4f0c2a91d3e85b76",
            "name": "monthly budget",
            "scope": "user:alice",
            "window": "month",
            "limit_usd": "50",
            "used_usd": "21.6",
            "percent_used": 43.2,
        }
    ],
}


class BudgetOut(BaseModel):
    """One budget, a limit on cost, in its running window."""

    limit_id: str
    name: str
    scope: str
    window: str
    limit_usd: str
    used_usd: str
    percent_used: float


class BudgetsOut(BaseModel):
    """The budgets of those asked about, and the ten fullest of them."""

    active: int
    exceeded: int
    total_usd: str
    used_usd: str
    percent_used: float
    highest_percent: float
    items: list[BudgetOut]


class ModelOut(FiguresOut):
    """What was used of one model."""

    provider: str | None
    model: str | None


class EndpointOut(FiguresOut):
    """What one endpoint used."""

    endpoint: str | None


def named_figures(found: ByName, names: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """The names with the most calls, each with its figures; one not given is null. Pure."""
    return [
        {name: value or None for name, value in zip(names, values, strict=True)} | figures(sums)
        for values, sums in top(found, count)
        if sums.calls
    ]


def budgets_out(budgets: Budgets) -> BudgetsOut:
    fullest = sorted(budgets.items, key=lambda one: (-one.percent, one.scope_key, one.rule.id))
    return BudgetsOut(
        active=len(budgets.items),
        exceeded=budgets.exceeded,
        total_usd=to_usd(budgets.total),
        used_usd=to_usd(budgets.used),
        percent_used=budgets.percent,
        highest_percent=budgets.highest,
        items=[
            BudgetOut(
                limit_id=one.rule.id,
                name=one.rule.name,
                scope=one.scope_key,
                window=one.rule.window,
                limit_usd=to_usd(one.amount),
                used_usd=to_usd(one.used),
                percent_used=one.percent,
            )
            for one in fullest[:SHOWN]
        ],
    )
