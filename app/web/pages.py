"""The page that every problem document's `type` points to."""

from html import escape

from app.core.errors import AppError

_STYLE = (
    "body{font:16px/1.5 system-ui;max-width:44rem;margin:2rem auto;padding:0 1rem}"
    "h2{margin-top:2rem}code{background:#8882;padding:.1em .3em}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}"
)


def kinds() -> list[type[AppError]]:
    """Every kind of problem, by status and slug."""

    def below(kind: type[AppError]) -> list[type[AppError]]:
        return [kind, *(found for sub in kind.__subclasses__() for found in below(sub))]

    return sorted(below(AppError), key=lambda kind: (kind.status, kind.slug))


def problems_page() -> str:
    """One section per kind of problem, under the anchor that `type` names."""
    sections = [
        f'<h2 id="{kind.slug}">{escape(kind.title)}</h2>'
        f"<p><code>{kind.status}</code> <code>{kind.slug}</code></p>"
        f"<p>{escape((kind.__doc__ or '').strip())}</p>"
        for kind in kinds()
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Tollgate problems</title><style>{_STYLE}</style>"
        f"<h1>Problems</h1><p>What an answer with status 400 or above means.</p>"
        f"{''.join(sections)}</html>"
    )
