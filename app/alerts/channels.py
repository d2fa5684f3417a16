"""Channels that people read, by the apprise library: which URLs it may have, and sending.

The library connects by itself, so its connections cannot be pinned to a judged address. Therefore
only services that we know are let through: those with a fixed address of their own, and those whose
URL names a host, which the guard judges. It follows no redirect, opens no file and no template.
"""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_plus

from app.alerts.guard import LONGEST_URL, MAIL_PORTS, PORTS, WEB_PORTS, Guard, Refused
from app.alerts.messages import spoken
from app.alerts.schedule import Outcome

HOSTED = {
    *("slack", "discord", "tgram", "gchat", "wxteams", "webex", "zulip"),
    *("pagerduty", "opsgenie", "pover", "pbul", "twilio", "sendgrid"),
}
"""Services at an address of their own: the URL holds tokens, and no host."""
WITH_HOST = {
    *("json", "jsons", "xml", "xmls", "form", "forms", "workflow", "workflows"),
    *("ntfy", "ntfys", "gotify", "gotifys", "mmost", "mmosts", "rocket", "rockets"),
    *("mailto", "mailtos"),
}
"""Services at the host in the URL. Teams is `workflows`, e-mail is `mailto` and `mailtos`."""
PLAIN = {"json", "xml", "form", "ntfy", "gotify", "mmost", "rocket"}
CLOUD = {"ntfy", "ntfys"}
"""Without a user or more than a topic, these lead to the service's own address."""
FORBIDDEN = ("template", "redirect", "attach", "pgp", "wkd", "pem", "key", "config", "avatar_url")
"""Parameters that read files, follow others or fetch from elsewhere."""
_PARAMETER = re.compile(r"[?&;]([^=&;]*)")
"""Wherever they stand: the library finds parameters behind a `#` too."""
THREADS = 4
SERVICE_S = 5.0


class Channels:
    """Sends text to people's channels, in threads of its own."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._threads: ThreadPoolExecutor | None = None

    async def send(self, url: str, payload: str) -> Outcome:
        """Judge the URL again and notify.

        Raises:
            Refused: the URL is not one that the library may have.
        """
        await judge_channel(self._guard, url)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "channel")
        loop = asyncio.get_running_loop()
        taken = await loop.run_in_executor(self._threads, _notify, url, *spoken(payload))
        return Outcome(0) if taken else Outcome(0, error="the channel did not take the message")

    def close(self) -> None:
        """Wait for nobody: a thread ends by the library's own time-outs."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)


async def judge_channel(guard: Guard, url: str) -> None:
    """Judge a URL of the apprise library.

    Raises:
        Refused: an unknown or local service, a host that is not for us, a parameter that is not.
    """
    service = service_of(url)
    if service in PLAIN and not guard.allow_http:
        raise Refused(f"`{service}s` is expected: the connection would not be encrypted")
    found = await asyncio.to_thread(_instance, url)
    if found is None or found.redirects or getattr(found, "use_wkd", False):
        raise Refused("the library does not understand this URL")
    if service not in WITH_HOST or (service in CLOUD and found.mode == "cloud"):
        return
    mail = service.startswith("mailto")
    host = str((found.smtp_host if mail else found.host) or "")
    if not host:
        raise Refused("a host is missing")
    port = found.port or PORTS["http" if service in PLAIN else "https"]
    await guard.addresses(host, int(port), ports=MAIL_PORTS if mail else WEB_PORTS)


def service_of(url: str) -> str:
    """The scheme of a URL that the library may be given.

    Raises:
        Refused: it is no such URL, of no known service, or has a forbidden parameter.
    """
    if not 1 <= len(url) <= LONGEST_URL or any(char <= " " or char == "\x7f" for char in url):
        raise Refused(f"a URL of at most {LONGEST_URL} characters is expected")
    scheme, _, rest = url.partition("://")
    if scheme not in HOSTED | WITH_HOST:
        raise Refused("this is not a channel that messages are sent to")
    names = (unquote_plus(name).strip().lower() for name in _PARAMETER.findall(rest))
    if rest.count("?") > 1 or any(name.startswith(FORBIDDEN) for name in names):
        raise Refused("the URL has a parameter that is not allowed")
    return scheme


def _instance(url: str) -> Any:
    import apprise  # noqa: PLC0415  (20 MB that only its users need to hold)

    asset = apprise.AppriseAsset(
        storage_mode="memory", service_timeout=SERVICE_S, allow_templates=False
    )
    asset.http_redirects = False
    asset.pgp_autogen = asset.pem_autogen = False
    asset.async_mode = False
    return apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)


def _notify(url: str, title: str, text: str) -> bool:
    instance = _instance(url)
    return instance is not None and bool(instance.notify(title=title, body=text))
