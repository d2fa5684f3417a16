"""The real service in a process of its own, a client of it, and the stand-in for the models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from stand_in import StandIn

from tests.postgres import new_database, running_server  # isort: split

from tests.faults.service import ADMIN, HEADERS, Service, serving
from tollgate_client import Tollgate


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server where databases may be made."""
    with running_server() as url:
        yield url


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on SQLite that nobody breaks."""
    folder = tmp_path_factory.mktemp("service")
    with serving(f"sqlite:///{folder}/tollgate.db") as services:
        yield services[0]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database on either engine, for services that are broken."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tollgate.db"
    return new_database(request.getfixturevalue("postgres_server"))


@pytest.fixture
def gate(service: Service) -> Iterator[Tollgate]:
    """A client that keeps what waits in memory."""
    with Tollgate(service.base, ADMIN, on_error="closed", flush_interval_s=0.05) as found:
        yield found


@pytest.fixture(scope="session")
def models() -> Iterator[StandIn]:
    found = StandIn()
    yield found
    found.close()


@pytest.fixture
def user(request: pytest.FixtureRequest) -> str:
    """A user of this test alone."""
    return f"u-{request.node.name}"


@pytest.fixture
def said(service: Service) -> Any:
    """Reads the service: the items of a path, or its object."""

    def read(path: str, **params: str) -> Any:
        answer = httpx.get(
            f"{service.base}{path}", params=params, headers=HEADERS, trust_env=False
        ).raise_for_status()
        found = answer.json()
        return found.get("items", found)

    return read


@pytest.fixture
def limit(service: Service) -> Any:
    """Makes a limit."""

    def make(**fields: Any) -> str:
        wish = {"metric": "calls", "window": "month", "action": "block", "name": "l"} | fields
        answer = httpx.post(
            f"{service.base}/v1/limits", json=wish, headers=HEADERS, trust_env=False
        ).raise_for_status()
        return str(answer.json()["id"])

    return make
