"""Connections to the very addresses that the guard has judged, whatever a name says next."""

from collections.abc import Iterable
from typing import Any

import httpcore

from app.alerts.guard import Guard


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Resolves through the guard; TLS still asks for the certificate of the name."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self._inner = guard, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (httpcore's own signature)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first judged address that answers.

        Raises:
            Refused: the name leads where messages are not sent.
        """
        addresses = await self._guard.addresses(host, port)
        share_s = None if timeout is None else timeout / len(addresses)
        failed: Exception | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    address,
                    port,
                    timeout=share_s,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed or httpcore.ConnectError("no address answered")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """There are no webhooks on this machine's own sockets."""
        raise httpcore.ConnectError("not a network address")

    async def sleep(self, seconds: float) -> None:
        """Wait, as connections do between tries."""
        await self._inner.sleep(seconds)
