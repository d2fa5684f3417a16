"""Run the service as a process of its own for as long as it is needed, and leave nothing behind."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NamedTuple, NoReturn

import httpx

from app.core.clock import Clock

HOST = "127.0.0.1"
READY_S = 60.0
STOP_S = 10.0
_COMMAND = (sys.executable, "-c", "from app.cli import app; app()", "serve", "--host", HOST)


class NotStartedError(Exception):
    """The service did not come up; the message is what it said."""


class Service(NamedTuple):
    """A service that answers at this address, and opens everything to this key."""

    address: str
    admin_key: str


@contextmanager
def serving() -> Iterator[Service]:
    """Serve a fresh SQLite file in a temporary folder; stopped and removed however this ends.

    Raises:
        NotStartedError: it ended, or did not answer in time.
    """
    with (
        _ended_by_signals(),
        TemporaryDirectory(prefix="tollgate-demo-", ignore_cleanup_errors=True) as folder,
    ):
        service = Service(f"http://{HOST}:{_free_port()}", secrets.token_urlsafe(32))
        said = Path(folder) / "service.log"
        with said.open("wb") as log:
            child = subprocess.Popen(
                [*_COMMAND, "--port", service.address.rpartition(":")[2]],
                env=_environment(service, Path(folder) / "demo.db"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us, and we stop it in order
            )
        try:
            _wait_until_ready(child, service, said)
            yield service
        finally:
            _stop(child)


def _environment(service: Service, file: Path) -> dict[str, str]:
    """Ours without the settings of a real service, which this one must not share."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")
    }
    return inherited | {
        "TOLLGATE_ADMIN_KEY": service.admin_key,
        "TOLLGATE_ARCHIVE_URL": str(file.parent / "archives"),
        "TOLLGATE_DATABASE_URL": f"sqlite:///{file}",
        "TOLLGATE_LOG_LEVEL": "warning",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_ready(child: subprocess.Popen[bytes], service: Service, said: Path) -> None:
    clock = Clock()
    deadline = clock.monotonic_s() + READY_S
    with httpx.Client(base_url=service.address, trust_env=False, timeout=5) as client:
        while clock.monotonic_s() < deadline:
            try:
                child.wait(0.05)
            except subprocess.TimeoutExpired:
                pass  # still there
            else:
                raise NotStartedError(f"the service ended at once:\n{_tail(said)}")
            try:
                if client.get("/readyz").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # not listening yet
    raise NotStartedError(f"the service was not ready within {READY_S:.0f} s:\n{_tail(said)}")


def _tail(said: Path) -> str:
    return "\n".join(said.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def _stop(child: subprocess.Popen[bytes]) -> None:
    try:
        child.terminate()
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass  # it had its time
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Turn the signals that would end us on the spot into an exception, so that we clean up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers belong to the main thread
        return
    before = {each: signal.signal(each, _interrupt) for each in _ENDING}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


_ENDING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
