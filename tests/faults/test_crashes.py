"""P1, P2, P11: killed or asked to leave at any moment, the service keeps what it promised."""

import asyncio
import random
import signal
import socket

import httpx
import pytest

from tests.faults.service import HEADERS, Service, Writers, event, serving, stored

pytestmark = pytest.mark.fault

LEFT = (0, -signal.SIGTERM)
"""uvicorn finishes and then lets the signal have its way, so that a supervisor sees why it left."""


async def _kill_now_and_then(writers: Writers, services: list[Service], times: int) -> None:
    load = asyncio.create_task(writers.run())
    choose = random.Random(len(services))
    for _ in range(times):
        await asyncio.sleep(choose.uniform(0.3, 0.9))
        victim = choose.choice(services)
        await asyncio.to_thread(victim.kill)
        await asyncio.to_thread(victim.start)
    await asyncio.sleep(0.3)
    writers.running = False
    await load


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_killed_at_any_moment_every_acknowledged_event_is_there_once(url: str) -> None:
    with serving(url) as services:
        writers = Writers(services)
        asyncio.run(_kill_now_and_then(writers, services, 2))
        assert writers.acknowledged == writers.sent.keys()
        writers.check(url)
        assert len(writers.sent) > 50


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_two_servers_killed_in_turn_keep_one_account(url: str) -> None:
    with serving(url, 2) as services:
        writers = Writers(services, seed=2)
        asyncio.run(_kill_now_and_then(writers, services, 2))
        assert writers.acknowledged == writers.sent.keys()
        writers.check(url)
        assert len(writers.sent) > 50


async def _end_under_load(service: Service) -> tuple[int, float, list[int], set[str]]:
    """Every connection sends until it is closed; an answer that came is never a 5xx."""
    statuses: list[int] = []
    promised: set[str] = set()

    async def one(number: int, client: httpx.AsyncClient) -> None:
        for turn in range(100_000):
            name = f"{number}-{turn}"
            try:
                answer = await client.post(
                    f"{service.base}/v1/events", json=event(name, f"u{number}")
                )
            except httpx.ConnectError:
                return  # it no longer listens
            except httpx.HTTPError:
                continue  # an idle connection was closed as this one came: it was not accepted
            statuses.append(answer.status_code)
            if answer.status_code == 201:
                promised.add(name)

    limits = httpx.Limits(max_connections=32)
    async with httpx.AsyncClient(
        headers=HEADERS, trust_env=False, timeout=10, limits=limits
    ) as client:
        load = [asyncio.create_task(one(number, client)) for number in range(16)]
        await asyncio.sleep(0.7)
        code, took = await asyncio.to_thread(service.terminate)
        await asyncio.gather(*load)
    return code, took, statuses, promised


def test_asked_to_leave_it_finishes_what_it_took(url: str) -> None:
    with serving(url) as (service,):
        code, took, statuses, promised = asyncio.run(_end_under_load(service))
        assert took < 10
        assert code in LEFT
        assert set(statuses) == {201}
        assert promised <= {name for _, name, _, _ in stored(url)[0]}
        assert "ERROR" not in service.output()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_dawdling_client_does_not_hold_the_process_up(url: str) -> None:
    with serving(url) as (service,), socket.create_connection(("127.0.0.1", service.port)) as half:
        head = "POST /v1/events?atomic=false HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        head += f"Authorization: {HEADERS['Authorization']}\r\nContent-Type: application/json\r\n"
        half.sendall(head.encode() + b"\r\n{")
        code, took = service.terminate()
        assert took < 10
        assert code in LEFT
        assert stored(url)[0] == []
