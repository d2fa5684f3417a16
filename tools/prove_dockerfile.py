"""Run every step of the Dockerfile in a temporary folder, with no container engine.

Each stage starts from an empty root with a fresh virtual environment in the place of the image's
Python; absolute paths are moved under that root. Then the service is started as the last stage
would start it, its health check is run as written, an event is sent, and it is asked to stop.
What stays unproven is what only an engine has: the base image itself, users and volumes.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATHS = ("/src", "/wheels", "/opt/tollgate", "/data")
"""The absolute paths that the Dockerfile makes."""
NEEDS_ENGINE = ("useradd ", "groupadd ")
KEPT = re.compile("HOME|TMPDIR|LANG|PIP_.*|SSL_.*|.*_PROXY|.*_proxy")
"""What of our own environment pip may need to reach its index."""
KEY = "prove-the-image-admin-key-0123456789abcdef"


def instructions() -> Iterator[tuple[str, str]]:
    """(instruction, rest) for each line of the Dockerfile that is not a comment."""
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def context(folder: Path) -> Path:
    """The build context: what .dockerignore lets through."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in (line[1:] for line in lines if line.startswith("!")):
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, target)
    return folder


class Stage:
    """One stage: its root, its environment, and where its commands run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cwd = root
        self.last: dict[str, str] = {}
        python = root / "usr"
        subprocess.run([sys.executable, "-m", "venv", str(python)], check=True)
        self.env = {
            "PATH": f"{python / 'bin'}:/usr/bin:/bin",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **{name: value for name, value in os.environ.items() if KEPT.match(name)},
        }

    def moved(self, text: str) -> str:
        """Absolute paths of the image, under this stage's root."""
        found = text
        for path in PATHS:
            found = re.sub(rf"(?<![\w.]){path}\b", f"{self.root}{path}", found)
        return found

    def run(self, command: str) -> None:
        if command.startswith(NEEDS_ENGINE):
            return
        command = self.moved(command)
        if command.startswith("install ") and os.geteuid() != 0:
            command = re.sub(r"-[og] \d+ ", "", command)
        subprocess.run(["sh", "-c", command], check=True, cwd=self.cwd, env=self.env)

    def copy(self, rest: str, given: Path, earlier: Mapping[str, "Stage"]) -> None:
        words = rest.split()
        if words[0].startswith("--from="):
            given = earlier[words.pop(0).removeprefix("--from=")].root
        *sources, target = words
        into = Path(self.moved(target)) if target.startswith("/") else self.cwd / target
        for source in (given / name.lstrip("/") for name in sources):
            if source.is_dir():
                shutil.copytree(source, into, symlinks=True)
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, into)

    def set(self, rest: str) -> None:
        name, _, value = rest.partition("=")
        self.env[name] = self.moved(value.replace("$PATH", self.env["PATH"]))


def built(folder: Path) -> Stage:
    """The last stage, after every step before it."""
    given = context(_made(folder / "context"))
    stages: dict[str, Stage] = {}
    stage = None
    for name, rest in instructions():
        say(f"{name} {rest}")
        if name == "FROM":
            image, _, alias = rest.partition(" AS ")
            if image != "python:3.11-slim":
                raise SystemExit(f"this script stands in for python:3.11-slim, not for {image}")
            if stage is not None:  # what was built is all that the next stage can copy from
                (folder / "root").rename(folder / "before")
                stage.root = folder / "before"
            stage = stages[alias] = Stage(_made(folder / "root"))
        elif stage is None:
            raise SystemExit("the Dockerfile does not begin with FROM")
        elif name == "RUN":
            stage.run(rest)
        elif name == "COPY":
            stage.copy(rest, given, stages)
        elif name == "WORKDIR":
            stage.cwd = Path(stage.moved(rest))
            stage.cwd.mkdir(parents=True, exist_ok=True)
        elif name == "ENV":
            stage.set(rest)
        else:
            stage.last[name] = rest
    if stage is None:
        raise SystemExit("the Dockerfile is empty")
    return stage


def started(stage: Stage, port: int) -> None:
    """Start the service, check its health, send an event, stop it."""
    env = stage.env | {"TOLLGATE_PORT": str(port), "TOLLGATE_ADMIN_KEY": KEY}
    command = json.loads(stage.last["ENTRYPOINT"]) + json.loads(stage.last["CMD"])
    health = json.loads(stage.last["HEALTHCHECK"].partition("CMD ")[2])
    with subprocess.Popen(command, cwd=stage.cwd, env=env) as process:
        try:
            until_healthy(health, stage, env)
            say(send(port))
        finally:
            process.send_signal(getattr(signal, stage.last["STOPSIGNAL"]))
            code = process.wait(10)
    if code not in (0, -signal.SIGTERM):
        raise SystemExit(f"the service ended with {code}")
    if not (stage.root / "data" / "tollgate.db").exists():
        raise SystemExit("the database is not on the volume")


def until_healthy(health: list[str], stage: Stage, env: Mapping[str, str]) -> None:
    for _ in range(50):
        found = subprocess.run(health, cwd=stage.cwd, env=env, capture_output=True, check=False)
        if found.returncode == 0:
            say("healthy")
            return
        time.sleep(0.2)
    raise SystemExit(f"never healthy: {found.stderr.decode()[-300:]}")


def send(port: int) -> str:
    call = {"user_id": "alice", "provider": "openai", "model": "gpt-4o-mini"}
    body: dict[str, Any] = call | {"usage": {"input_tokens": 1200, "output_tokens": 300}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/events",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        text: str = answer.read().decode()
    if json.loads(text)["cost_status"] != "priced":
        raise SystemExit(f"not the receipt we expected: {text}")
    return text


def say(line: str) -> None:
    sys.stderr.write(f"» {line}\n")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Prove it, or end with the step that failed."""
    with tempfile.TemporaryDirectory(prefix="tollgate-image-") as name:
        folder = Path(name)
        stage = built(folder)
        size = sum(each.stat().st_size for each in stage.root.rglob("opt/**/*") if each.is_file())
        say(f"installed: {size / 1e6:.0f} MB")
        started(stage, _free_port())
    say("every step works")


if __name__ == "__main__":
    main()
