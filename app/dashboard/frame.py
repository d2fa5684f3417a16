"""What every page has around it: the templates, the navigation, the headers that keep it safe."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from app.dashboard import shown
from app.dashboard.assets import address_of
from app.dashboard.deps import Viewer

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context

POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Cookie, HX-Request",
}
PAGES = (
    ("/dashboard", "Overview"),
    ("/dashboard/users", "Users"),
    ("/dashboard/prices", "Prices"),
    ("/dashboard/limits", "Limits & plans"),
    ("/dashboard/alerts", "Alerts & webhooks"),
    ("/dashboard/system", "System"),
)


@cache
def environment() -> "Environment":
    """The templates of this package; everything that is put into them is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  (first use)
    from jinja2 import pass_context as with_context  # noqa: PLC0415

    @with_context
    def ago(context: "Context", moment: datetime | None) -> Markup:
        return shown.ago(moment, context["viewer"].now)

    found = Environment(
        loader=PackageLoader("app.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {
        "money": shown.money,
        "exact_money": shown.exact_money,
        "count": shown.count,
        "compact": shown.compact,
        "tokens": shown.tokens,
        "percent": shown.percent,
        "change": shown.change,
        "duration_ms": shown.duration_ms,
        "when": shown.when,
        "ago": ago,
        "user_href": shown.user_href,
        "static": address_of,
    }
    return found


def page(
    viewer: Viewer | None, template: str, /, *, status: int = 200, **context: Any
) -> HTMLResponse:
    """A page, or a part of one, from its template.

    The template also gets the navigation, the theme, and `unread` alerts (0 unless given); with a
    `span` it shows the time picker, which keeps the query parameters in `keep`.
    """
    given = {
        "viewer": viewer,
        "theme": "auto" if viewer is None else viewer.theme,
        "navigation": [] if viewer is None else navigation(viewer, context),
    }
    text = environment().get_template(template).render(given | context)
    return HTMLResponse(text, status, headers=HEADERS)


def navigation(viewer: Viewer, context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pages that the viewer may go to, each with the range that is being looked at."""
    if viewer.user_id is not None:
        pages: Sequence[tuple[str, str]] = [(shown.user_href(viewer.user_id), "Usage")]
    else:
        pages = PAGES
    query = f"?{context['span'].query}" if "span" in context else ""
    return [
        {
            "href": f"{path}{query}",
            "name": name,
            "current": _is_at(viewer.path, path),
            "count": context.get("unread", 0) if path == "/dashboard/alerts" else 0,
        }
        for path, name in pages
    ]


def _is_at(here: str, path: str) -> bool:
    if path == "/dashboard":
        return here.rstrip("/") == path or here.startswith("/dashboard/overview")
    return here == path or here.startswith(f"{path}/")


# ---- tables to take along -----------------------------------------------------------------------

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_answer(
    name: str, columns: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> Response:
    """The rows of a table as CSV, by the columns' `key`s; markup becomes its text.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    kept = [column for column in columns if column.get("name")]
    writer.writerow([_cell(column["name"]) for column in kept])
    writer.writerows([_cell(row.get(column["key"])) for column in kept] for row in rows)
    safe = "".join(char if char.isascii() and char.isalnum() else "-" for char in name)
    disposition = {"Content-Disposition": f'attachment; filename="tollgate-{safe}.csv"'}
    body = out.getvalue().encode("utf-8", "replace")
    return Response(body, media_type="text/csv; charset=utf-8", headers=HEADERS | disposition)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value.striptags() if isinstance(value, Markup) else str(value)
    if not text.lstrip().startswith(DANGEROUS) and not text.startswith(DANGEROUS):
        return text
    return text if _is_number(text) else f"'{text}"


def _is_number(text: str) -> bool:
    sign, _, rest = text.partition("-") if text.startswith("-") else ("", "", text)
    plain = rest.removeprefix("$").replace(",", "").replace(".", "", 1)
    return not sign and text[:1] in "-0123456789$" and plain.isascii() and plain.isdigit()
