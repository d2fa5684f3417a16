"""What the tour prints: values in, things to print out. Fits 80 columns, grows with wider ones."""

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal

from rich import box
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.demo.client import Alert, Amount, Audit, Check, Estimate, LimitState, Usage, Used

SHOWN_MODELS = 8
_CENT = Decimal("0.01")
_SEVERITY = {"info": "cyan", "warning": "yellow", "error": "bold red"}
_STATUS = {"active": "green", "warning": "yellow", "limit_reached": "bold red"}


def usd(text: str | None) -> str:
    """Money for people: cents, and below a dollar three digits, so that little is never zero."""
    if text is None:
        return "unknown"
    amount = Decimal(text)
    if not amount:
        return "$0"
    step = _CENT if abs(amount) >= 1 else Decimal(1).scaleb(amount.adjusted() - 2)
    whole, _, fraction = f"{amount.quantize(step, ROUND_HALF_EVEN):,f}".partition(".")
    return f"${whole}.{fraction[:2]}{fraction[2:].rstrip('0')}"


def heading(number: int, title: str) -> Text:
    """The line above a section."""
    return Text(f"\n{number}. {title}", style="bold")


def status(name: str) -> Text:
    """A usage status in its colour."""
    return Text(name.replace("_", " "), style=_STATUS.get(name, ""))


def usage_table(usage: Usage, user_id: str) -> RenderableType:
    """What a user used this period, the most expensive models first, and how the limits stand."""
    latency = "unknown" if usage.avg_latency_ms is None else f"{usage.avg_latency_ms:,.0f} ms"
    told = Text(
        f"{user_id}, {usage.billing_period.key}: {usage.total_calls:,} calls, "
        f"{usage.total_tokens:,} tokens, {usd(usage.total_cost_usd)}, "
        f"{latency} on average, {usage.error_rate}% errors, "
    )
    told.append_text(status(usage.usage_status))
    models = sorted(
        (
            (Decimal(model.cost_usd or 0), provider, name, model)
            for provider, found in usage.providers.items()
            for name, model in found.models.items()
        ),
        key=lambda row: (-row[0], *row[1:3]),
    )
    table = _table()
    table.add_column("provider", no_wrap=True)
    table.add_column("model", no_wrap=True, ratio=1)
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    for _, provider, name, model in models[:SHOWN_MODELS]:
        cells = (f"{model.calls:,}", f"{model.tokens:,}", usd(model.cost_usd))
        table.add_row(provider, name, *cells)
    rest = models[SHOWN_MODELS:]
    if rest:
        table.add_row(
            f"{len(rest)} others",
            "",
            f"{sum(row[3].calls for row in rest):,}",
            f"{sum(row[3].tokens for row in rest):,}",
            usd(str(sum(row[0] for row in rest))),
            style="dim",
        )
    return Group(told, Text(), table, Text(), limits_table(usage.limits))


def limits_table(limits: Sequence[LimitState]) -> Table:
    """How far each limit is used, as figures and as a bar."""
    table = _table()
    table.add_column("limit", no_wrap=True)
    table.add_column("used", justify="right", no_wrap=True)
    table.add_column("of", justify="right", no_wrap=True)
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("", ratio=1)
    for limit in limits:
        full = min(limit.percent_used, 100.0)
        colour = "red" if full >= 100 else "yellow" if full >= 80 else "green"
        table.add_row(
            f"{limit.name} ({limit.action})",
            _amount(limit, limit.used),
            _amount(limit, limit.limit),
            f"{limit.percent_used:.2f}",
            Bar(100, 0, full, color=colour),
        )
    return table


def _amount(limit: LimitState, value: Amount | None) -> str:
    if value is None:
        return "unlimited"
    return usd(str(value)) if limit.metric == "cost_usd" else f"{value:,}"


def trends_table(periods: Sequence[Used]) -> Table:
    """Billing periods, oldest first, with their cost as a bar."""
    table = _table()
    table.add_column("period", no_wrap=True)
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("errors", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("", ratio=1)
    most = max((float(period.total_cost_usd) for period in periods), default=0.0)
    for period in periods:
        table.add_row(
            period.billing_period.key,
            f"{period.total_calls:,}",
            f"{period.total_tokens:,}",
            f"{period.error_rate}%",
            usd(period.total_cost_usd),
            Bar(most or 1.0, 0, float(period.total_cost_usd), color="blue"),
        )
    return table


def alerts_table(alerts: Sequence[Alert]) -> Table:
    """Alerts in the order they were raised."""
    table = _table()
    table.add_column("at", justify="right", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("when", no_wrap=True)
    table.add_column("message", ratio=1)
    for alert in alerts:
        table.add_row(
            f"{alert.threshold}%",
            Text(alert.severity, style=_SEVERITY.get(alert.severity, "")),
            f"{alert.created_at:%H:%M:%S} UTC",
            alert.message,
        )
    return table


def checks_table(checks: Mapping[str, Check]) -> Table:
    """Who asked, and what was answered."""
    table = _table()
    table.add_column("user", no_wrap=True)
    table.add_column("answer", no_wrap=True)
    table.add_column("estimate", justify="right", no_wrap=True)
    table.add_column("message", ratio=1)
    for user_id, check in checks.items():
        answer = Text("allowed", "green") if check.allowed else Text("denied", "bold red")
        table.add_row(user_id, answer, usd(check.estimated_cost_usd), check.message)
    return table


def estimate_table(estimate: Estimate) -> Table:
    """What a call costs, line by line."""
    table = _table(footer=True)
    table.add_column("unit", "cost", no_wrap=True, ratio=1)
    table.add_column("quantity", justify="right", no_wrap=True)
    table.add_column("rate", justify="right", no_wrap=True)
    table.add_column("amount", usd(estimate.cost_usd), justify="right", no_wrap=True)
    for line in estimate.lines:
        block = "" if line.block == 1 else f" per {line.block:,}"
        rate = f"{usd(line.usd_per_block)}{block}"
        table.add_row(line.unit, f"{line.quantity:,.10g}", rate, usd(line.amount_usd))
    return table


def unpriced_table(calls: Mapping[tuple[str, str], int]) -> Table:
    """Models that nothing prices, and how often they were called."""
    table = _table()
    table.add_column("provider", no_wrap=True)
    table.add_column("model", no_wrap=True, ratio=1)
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    for (provider, model), count in calls.items():
        table.add_row(provider, model, f"{count:,}", usd(None))
    return table


def audit_table(audit: Audit) -> Table:
    """Each identity, and how many places were compared."""
    table = _table()
    table.add_column("identity", no_wrap=True, ratio=1)
    table.add_column("compared", justify="right", no_wrap=True)
    table.add_column("holds", no_wrap=True)
    for identity in audit.identities:
        holds = Text("yes", "green") if identity.holds else Text("NO", "bold red")
        table.add_row(identity.name.replace("_", " "), f"{identity.compared:,}", holds)
    return table


def _table(*, footer: bool = False) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        header_style="dim",
        expand=True,
        show_edge=False,
        show_footer=footer,
        pad_edge=False,
    )
