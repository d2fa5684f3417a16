"""Run one program against a fresh service, and compare what was served with what was metered."""

import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from clients.environments import HERE, ready, version
from clients.model import Model, Served
from clients.registry import CACHED, FAILURES, REASONING, RESPONSES, WRITTEN, Client
from tests.faults.service import HEADERS, Service, serving

ARRIVAL_S = 20
"""How long a program's last words may take; LiteLLM and the exporters gather for five seconds."""
RUN_S = 180
PASSED_ON = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "TERM")
NOBODY = "unknown"
COUNTERS = {
    CACHED: "cache_read_tokens",
    WRITTEN: "cache_write_tokens",
    REASONING: "output_reasoning_tokens",
}
"""The parts of the input and the output that are compared where a program tells them."""


class Call(NamedTuple):
    """A call as both sides can tell it; a part is 0 where the program does not tell it."""

    user: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    written_tokens: int
    reasoning_tokens: int
    failed: bool


class Result(NamedTuple):
    """What became of one program: calls on both sides, and what is wrong, if anything."""

    client: Client
    version: str
    served: list[Call]
    metered: list[Call]
    untold: int
    problems: list[str]


def run(client: Client) -> Result:
    """Install and run a program; never raises for what the program or the service does wrong."""
    programs = ready(client.environment)
    found = version(client.environment, client.package)
    with tempfile.TemporaryDirectory(prefix="tollgate-client-") as folder:
        model = Model()
        try:
            with serving(f"sqlite:///{folder}/tollgate.db") as [service]:
                problems = _play(client, programs, Path(folder), model, service)
                expected = sorted(call for one in model.served for call in _told(one, client))
                metered, more = _arrived(service, expected, client)
        finally:
            model.close()
    untold = len(model.served) - len(expected)
    problems += more + _differences(Counter(expected), Counter(metered))
    if not expected:
        problems.append("the program made no call")
    return Result(client, found, expected, metered, untold, problems)


def _play(
    client: Client, programs: Path, folder: Path, model: Model, service: Service
) -> list[str]:
    key = _request(
        service, "POST", "/v1/api-keys", json={"name": client.name, "scopes": ["ingest"]}
    )["key"]
    runner = {".py": "python", ".mjs": "node", ".sh": "sh"}[Path(client.script).suffix]
    own = programs / runner
    command = str(own) if own.exists() else shutil.which(runner) or runner
    if client.environment == "node":
        (folder / "node_modules").symlink_to(programs.parent)
        shutil.copy(HERE / "programs" / client.script, folder)
        script = folder / client.script
    else:
        script = HERE / "programs" / client.script
    said = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    said |= {
        "HOME": str(folder),
        "PATH": f"{programs}:{said['PATH']}",
        "NO_PROXY": "*",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MODEL_URL": model.url,
        "TOLLGATE_URL": service.base,
        "TOLLGATE_KEY": key,
        "OTEL_EXPORTER_OTLP_ENDPOINT": service.base,
        "OTEL_EXPORTER_OTLP_HEADERS": f"Authorization=Bearer {key}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    log = folder / "said"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [command, str(script), *filter(None, [client.argument])],
            cwd=folder,
            env=said | dict(client.extra),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(RUN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            code = process.wait()
    if code == 0:
        return []
    return [f"the program ended with {code}: {log.read_text(errors='replace')[-2000:]}"]


def _told(one: Served, client: Client) -> list[Call]:
    """The call that a program is expected to tell of an answer, if any."""
    failed = one.status >= 400
    if failed and FAILURES in client.silent:
        return []
    if one.path.endswith("/responses") and RESPONSES in client.silent:
        return []
    parts = (
        0 if kind in client.silent else value
        for kind, value in zip(
            COUNTERS,
            (one.cached_tokens, one.written_tokens, one.reasoning_tokens),
            strict=True,
        )
    )
    return [Call(one.user, one.input_tokens, one.output_tokens, *parts, failed)]


def _arrived(
    service: Service, expected: list[Call], client: Client
) -> tuple[list[Call], list[str]]:
    """What the service has, once it is what was expected, or after the time for it."""
    users = sorted({call.user for call in expected} | {NOBODY})
    end = time.monotonic() + ARRIVAL_S
    while True:
        events = [event for user in users for event in _events(service, user)]
        metered = sorted(_metered(event, client) for event in events)
        if metered == expected or time.monotonic() > end:
            break
        time.sleep(0.25)
    problems = []
    total = _request(service, "GET", "/v1/analytics/totals")["total_calls"]
    if total != len(metered):
        problems.append(f"{total} calls in the totals, {len(metered)} in these users' events")
    if not _request(service, "GET", "/v1/audit/consistency")["consistent"]:
        problems.append("the audit finds the totals inconsistent")
    if metered != expected:
        problems.append(f"the service said: {service.output()[-1000:]}")
    return metered, problems


def _metered(event: dict[str, Any], client: Client) -> Call:
    usage = event["usage"]
    return Call(
        event["user_id"],
        usage.get("input_tokens", 0),
        usage.get("output_tokens", 0),
        *(
            0 if kind in client.silent else usage.get(counter, 0)
            for kind, counter in COUNTERS.items()
        ),
        event["status_code"] >= 400,
    )


def _events(service: Service, user: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _request(
        service, "GET", f"/v1/users/{quote(user, safe='')}/events?limit=1000"
    )["items"]
    return found


def _request(service: Service, method: str, path: str, **more: Any) -> dict[str, Any]:
    url = service.base + path
    answer = httpx.request(method, url, headers=HEADERS, trust_env=False, timeout=10, **more)
    answer.raise_for_status()
    said: dict[str, Any] = answer.json()
    return said


def _differences(expected: "Counter[Call]", metered: "Counter[Call]") -> list[str]:
    missing = [f"not metered: {call}" for call in (expected - metered).elements()]
    return missing + [f"metered, not served: {call}" for call in (metered - expected).elements()]
