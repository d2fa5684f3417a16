"""docker-compose.yml names things that exist, keeps no password, and leaves nothing unbounded."""

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from sqlalchemy import make_url

from app.cli import app as terminal
from app.doctor.environment import known_names
from tests.architecture.sources import ROOT
from tools.prove_dockerfile import instructions

FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / "deploy" / "compose" / "example.env"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if "build" in one}
PROGRAMS = {
    "postgres": {"pg_isready"},
    "edoburu/pgbouncer": {"pg_isready"},
    "prom/prometheus": {"wget"},
    "grafana/grafana": {"wget"},
    "tollgate": {"tollgate", "python"},
}
"""What a health check may start, by the image that it is started in."""
LISTENS = {
    "postgres": 5432,
    "pgbouncer": 6432,
    "prometheus": 9090,
    "grafana": 3000,
    "tollgate-1": 8000,
    "tollgate-2": 8000,
}
every_service = pytest.mark.parametrize("name", SERVICES)


def image_of(name: str) -> str:
    found: str = SERVICES[name]["image"].partition(":")[0]
    return found


def variables(name: str) -> dict[str, str]:
    found: dict[str, str] = SERVICES[name].get("environment", {})
    return found


def test_there_are_two_replicas_a_worker_and_what_they_stand_on() -> None:
    assert set(LISTENS) | {"migrate", "worker"} == set(SERVICES)
    commands = {name: one.get("command", ["serve"]) for name, one in OURS.items()}
    known = typer.main.get_command(terminal).commands  # type: ignore[attr-defined]
    assert {command[0] for command in commands.values()} <= set(known)
    assert sorted(command[0] for command in commands.values()) == [
        "migrate",
        "serve",
        "serve",
        "worker",
    ]


@every_service
def test_every_image_has_a_version(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:v?\d+(\.\d+)+(-p\d+)?", SERVICES[name]["image"])


@every_service
def test_every_service_is_bounded_and_comes_back_by_itself(name: str) -> None:
    service = SERVICES[name]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")


def test_every_variable_of_ours_is_a_setting() -> None:
    for name in OURS:
        assert set(variables(name)) <= set(known_names()), name


def test_no_secret_is_written_down() -> None:
    """A value that matters comes from the environment, and its absence stops everything."""
    for name in SERVICES:
        for variable, value in variables(name).items():
            if re.search("PASSWORD|KEY|URL", variable) and variable != "TOLLGATE_ARCHIVE_URL":
                assert re.search(r"\$\{[A-Z_]+:\?\}", value), f"{name}: {variable}"
    asked = set(re.findall(r"\$\{([A-Z_]+)", FILE.read_text(encoding="utf-8")))
    asked |= {one["environment"] for one in COMPOSE["secrets"].values()}
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given.keys() == asked
    assert {name for name, value in given.items() if value} == {"METRICS_KEY"}
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


@every_service
def test_everything_that_is_mounted_exists(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert mount.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


def test_ports_are_open_to_this_machine_alone_and_lead_to_who_listens() -> None:
    seen = set()
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            host, outside, inside = port.split(":")
            assert host == "127.0.0.1"
            assert int(inside) == LISTENS[name]
            seen.add(outside)
    assert len(seen) == 4


@every_service
def test_every_health_check_starts_what_its_image_has(name: str) -> None:
    if name == "migrate":
        assert SERVICES[name]["healthcheck"] == {"disable": True}
        return
    check = SERVICES[name].get("healthcheck")
    if check is None:
        assert name in OURS
        (written,) = (rest for word, rest in instructions() if word == "HEALTHCHECK")
        command = json.loads(written.partition("CMD ")[2])
    else:
        kind, *command = check["test"]
        assert kind == "CMD"
    assert command[0] in PROGRAMS[image_of(name)]


def test_the_worker_is_asked_for_checks_that_there_are() -> None:
    from app.doctor.examine import NAMES  # noqa: PLC0415  (it loads most of the service)

    *command, only = SERVICES["worker"]["healthcheck"]["test"][1:]
    assert command == ["tollgate", "doctor", "--only"]
    assert set(only.split(",")) <= set(NAMES)


def test_each_waits_for_what_it_needs() -> None:
    for name, service in SERVICES.items():
        for other, wanted in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            if wanted["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"]


def test_replicas_leave_the_jobs_and_have_shards_of_their_own() -> None:
    replicas = [variables(name) for name in ("tollgate-1", "tollgate-2")]
    assert {one["TOLLGATE_JOBS"] for one in replicas} == {"off"}
    assert len({one["TOLLGATE_SHARD"] for one in replicas}) == 2


def test_the_database_is_reached_through_pgbouncer_in_transaction_mode() -> None:
    found = configparser.ConfigParser(comment_prefixes=(";",))
    found.read_string((ROOT / "deploy/pgbouncer/pgbouncer.ini").read_text(encoding="utf-8"))
    settings = found["pgbouncer"]
    assert settings["pool_mode"] == "transaction"
    assert int(settings["max_prepared_statements"]) > 0
    for name in OURS:
        url = make_url(
            variables(name)["TOLLGATE_DATABASE_URL"].replace("${POSTGRES_PASSWORD:?}", "x")
        )
        assert (url.host, url.port) == ("pgbouncer", int(settings["listen_port"]))
        assert url.query["pgbouncer"] == "true"
        assert found["databases"][url.database or ""].startswith("host=postgres port=5432 ")
        assert url.username == variables("postgres")["POSTGRES_USER"]


def test_prometheus_asks_every_replica_with_its_key() -> None:
    read = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text(encoding="utf-8"))
    (job,) = read["scrape_configs"]
    (targets,) = (one["targets"] for one in job["static_configs"])
    assert targets == [f"{name}:{LISTENS[name]}" for name in ("tollgate-1", "tollgate-2")]
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    folder = _inside("prometheus", "./deploy/prometheus")
    assert read["rule_files"] == [f"{folder}/*.rules.yml"]
    rules = list((ROOT / "deploy/prometheus").glob("*.rules.yml"))
    assert rules
    assert all("groups" in yaml.safe_load(one.read_text(encoding="utf-8")) for one in rules)


def test_grafana_finds_its_dashboards_and_where_they_read() -> None:
    folder = ROOT / "deploy" / "compose"
    boards = yaml.safe_load((folder / "grafana-dashboards.yml").read_text(encoding="utf-8"))
    (provider,) = boards["providers"]
    assert provider["options"]["path"] == _inside("grafana", "./deploy/grafana")
    read = yaml.safe_load((folder / "grafana-datasources.yml").read_text(encoding="utf-8"))
    (source,) = read["datasources"]
    assert source["url"] == f"http://prometheus:{LISTENS['prometheus']}"


def _inside(name: str, source: str) -> str:
    """Where a service sees a folder of ours."""
    (found,) = (one for one in SERVICES[name]["volumes"] if one.split(":")[0] == source)
    return str(found.split(":")[1])


def test_what_is_kept_lies_on_a_volume_that_the_image_made_for_its_user() -> None:
    made = [rest for word, rest in instructions() if word == "RUN" and "/data" in rest]
    assert any("-o 10001" in rest for rest in made)
    for name in OURS:
        assert "data:/data" in OURS[name]["volumes"]
        assert Path(variables(name)["TOLLGATE_ARCHIVE_URL"]).parent == Path("/data")


def _has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return asked.returncode == 0


if _has_compose():

    def test_compose_itself_takes_the_file(tmp_path: Path) -> None:
        given = tmp_path / "given.env"
        names = re.findall(r"^([A-Z_]+)=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
        given.write_text("".join(f"{name}=x\n" for name in names))
        command = ["docker", "compose", "--file", FILE, "--env-file", given, "config", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
