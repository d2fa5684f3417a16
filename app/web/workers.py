"""Several serving processes on one port, supervised by uvicorn, each with our server inside."""

from socket import socket
from typing import Any

from uvicorn import Config, Server
from uvicorn.supervisors import multiprocess

from app.web.server import DoorServer

ANSWERS_WITHIN_S = 30
"""A process that does not answer its supervisor for so long is hung, and is replaced. uvicorn's 5 s
would kill those of a machine that stood still, and give a new one no time to start."""


class DoorProcess(multiprocess.Process):
    """One serving process."""

    @property
    def server(self) -> Server:
        """What runs inside it."""
        if self._server is None:
            self._server = DoorServer(self.config)
        return self._server


class DoorWorkers(multiprocess.Multiprocess):
    """Keeps so many processes serving. SIGHUP replaces one after another, each by one that serves
    already; SIGTTIN and SIGTTOU make one more or one less."""

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        supervisor: Any = multiprocess
        supervisor.Process = DoorProcess  # it names the class in four places, and takes none
