"""One attempt: a message goes to a receiver, and what came of it is told. It never raises."""

import asyncio
import ssl
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from app.alerts.channels import Channels
from app.alerts.guard import Guard, Refused, target_of
from app.alerts.schedule import Outcome
from app.alerts.signing import signed_headers
from app.core.clock import Clock

if TYPE_CHECKING:
    import httpcore

TIMEOUT_S = 15.0
MOST_READ = 64 * 1024
MOST_KEPT = 1024
AGENT = b"Tollgate-Webhooks/1"


class Letter(NamedTuple):
    """A message and where it goes. `secrets` sign it, each with a signature of its own."""

    message_id: str
    payload: str
    kind: str
    url: str
    secrets: tuple[str, ...]


class Sender(Protocol):
    """Whatever can make an attempt."""

    async def send(self, letter: Letter, now: datetime) -> Outcome:
        """Try once, within the time-out."""

    async def close(self) -> None:
        """Let connections and threads go."""


class Post(Sender):
    """Sends by HTTP, signed, to nobody whom the guard refuses; people's channels by theirs."""

    def __init__(
        self, guard: Guard, clock: Clock, *, context: ssl.SSLContext | None = None
    ) -> None:
        self._guard, self._clock, self._context = guard, clock, context
        self._channels = Channels(guard)
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def send(self, letter: Letter, now: datetime) -> Outcome:
        """Try once, within the time-out."""
        began_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if letter.kind == "apprise":
                    outcome = await self._channels.send(letter.url, letter.payload)
                else:
                    outcome = await self._post(letter, now)
        except Refused as error:
            outcome = Outcome(0, error=f"not sent: {error}")
        except TimeoutError:
            outcome = Outcome(0, error=f"no answer within {TIMEOUT_S:.0f} seconds")
        except Exception as error:  # whatever a stranger's server does is an outcome, not a fault
            outcome = Outcome(0, error=f"no answer: {type(error).__name__}")
        took_ms = round((self._clock.monotonic_s() - began_s) * 1000)
        return outcome._replace(took_ms=took_ms)

    async def close(self) -> None:
        """Let connections and threads go."""
        self._channels.close()
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    def _opened(self) -> "httpcore.AsyncConnectionPool":
        if self._pool is None:
            import httpcore  # noqa: PLC0415  (who has no webhooks need not hold it)

            from app.alerts.pinned import PinnedBackend  # noqa: PLC0415

            context = self._context
            if context is None:
                context = httpcore.default_ssl_context()
                context.load_default_certs()
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=None,
                max_keepalive_connections=0,
                network_backend=PinnedBackend(self._guard),
            )
        return self._pool

    async def _post(self, letter: Letter, now: datetime) -> Outcome:
        target = target_of(letter.url, allow_http=self._guard.allow_http)
        body = letter.payload.encode()
        signed = signed_headers(letter.message_id, body, letter.secrets, now)
        shown = f"[{target.host}]" if ":" in target.host else target.host
        if (target.scheme, target.port) not in (("http", 80), ("https", 443)):
            shown = f"{shown}:{target.port}"
        headers = [
            (b"Host", shown.encode()),
            (b"User-Agent", AGENT),
            (b"Content-Type", b"application/json"),
            (b"Content-Length", str(len(body)).encode()),
            (b"Accept-Encoding", b"identity"),
            (b"Connection", b"close"),
            *((name.encode(), value.encode()) for name, value in signed.items()),
        ]
        place = (target.scheme.encode(), target.host.encode(), target.port, target.path.encode())
        url = _url(*place)
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_S)
        async with self._opened().stream(
            "POST", url, headers=headers, content=body, extensions={"timeout": timeouts}
        ) as answer:
            text = await _start_of(answer)
            after = next((v for k, v in answer.headers if k.lower() == b"retry-after"), None)
            return Outcome(
                0,
                status=answer.status,
                response=text,
                error=_why(answer.status),
                retry_after=None if after is None else after.decode("latin-1"),
            )


def _url(scheme: bytes, host: bytes, port: int, path: bytes) -> "httpcore.URL":
    import httpcore  # noqa: PLC0415

    return httpcore.URL(scheme=scheme, host=host, port=port, target=path)


def _why(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"answered {status}; redirects are not followed"
    return f"answered {status}"


async def _start_of(answer: "httpcore.Response") -> str:
    """The first kilobyte of the answer as text; of the rest not more than is bearable is read."""
    kept, seen = b"", 0
    async for chunk in answer.aiter_stream():
        kept += chunk[: MOST_KEPT - len(kept)]
        seen += len(chunk)
        if seen >= MOST_READ:
            break
    text = kept.decode("utf-8", "replace")
    return "".join(char if char.isprintable() or char in "\n\t" else " " for char in text)
