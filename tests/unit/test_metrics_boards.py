"""The Grafana dashboard and the alert rules ask only for what `/metrics` shows."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from app.core.clock import Clock
from app.db.engine import Database
from app.metrics.figures import Figures
from app.metrics.kinds import Counts, Family, Spread
from app.scrape.stored import Stored
from tests.architecture.sources import ROOT

BOARD = ROOT / "deploy" / "grafana" / "tollgate.json"
RULES = ROOT / "deploy" / "prometheus" / "tollgate.rules.yml"
OWN = re.compile(r"\b(?:tollgate|process)_[a-z0-9_]+")
SELECTED = re.compile(r"\b((?:tollgate|process)_[a-z0-9_]+)\{([^}]*)\}")
TARGET = {"instance", "job", "le"}
"""Labels that Prometheus adds, and that of a bucket."""


def families() -> list[Family]:
    stored = Stored(Database.open("sqlite:///none.db"), Clock(), "./archives")
    return [*Figures().families, *stored.families]


def samples() -> dict[str, set[str]]:
    """The labels of every sample, by its name."""
    found: dict[str, set[str]] = {}
    for family in families():
        labels = set(family.labels)
        if isinstance(family, Counts):
            found[f"{family.name}_total"] = labels
        elif isinstance(family, Spread):
            for end in ("sum", "count", "bucket"):
                found[f"{family.name}_{end}"] = labels | ({"le"} if end == "bucket" else set())
        else:
            found[family.name] = labels
    return found


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(BOARD.read_text(encoding="utf-8"))
    return found


def targets() -> Iterator[tuple[str, dict[str, str]]]:
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target


def rules() -> list[dict[str, Any]]:
    read = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in read["groups"] for rule in group["rules"]]


EXPRESSIONS = [(title, target["expr"]) for title, target in targets()] + [
    (rule["alert"], rule["expr"]) for rule in rules()
]


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_every_expression_asks_for_what_there_is(where: str, expression: str) -> None:
    known = samples()
    asked = set(OWN.findall(expression))
    assert asked <= known.keys(), where
    for name, selectors in SELECTED.findall(expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
        assert labels <= known[name] | TARGET, f"{where}: {name}"
    grouped = {
        label.strip()
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
        for label in labels.split(",")
    }
    there = set().union(*(known[name] for name in asked)) | TARGET
    assert grouped <= there, where
    assert expression.count("(") == expression.count(")")


def test_every_legend_names_a_label_that_is_left() -> None:
    for title, target in targets():
        expression = target["expr"]
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        left = {
            label.strip()
            for labels in re.findall(r"\bby \(([^)]*)\)", expression)
            for label in labels.split(",")
        }
        assert shown <= left, title


def test_every_family_is_on_the_board_or_in_a_rule() -> None:
    text = BOARD.read_text(encoding="utf-8") + RULES.read_text(encoding="utf-8")
    unused = {family.name for family in families() if family.name not in text}
    assert unused == {"process_open_fds", "process_start_time_seconds"}


def test_panels_do_not_lie_upon_each_other() -> None:
    seen: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in board()["panels"]]
    assert len(ids) == len(set(ids))
    for panel in board()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & seen, panel["title"]
        assert max(x for x, _ in cells) < 24
        seen |= cells


def test_the_rules_cover_what_must_wake_somebody() -> None:
    found = {rule["alert"]: rule for rule in rules()}
    assert {
        "TollgateNothingCommitted",
        "TollgateInconsistent",
        "TollgateOutboxGrows",
        "TollgateDiskFills",
    } <= found.keys()
    for rule in found.values():
        assert {"summary", "description"} <= rule["annotations"].keys()
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_every_metric_is_explained_on_its_page() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    told = set(OWN.findall(page))
    shown = {f"{one.name}_total" if isinstance(one, Counts) else one.name for one in families()}
    assert shown <= told
    assert told <= shown | samples().keys()
