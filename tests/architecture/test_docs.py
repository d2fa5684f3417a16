"""What the pages claim is so."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from app.cli import app as terminal
from tests.architecture.sources import ROOT
from tools.generate_docs import DOCS, PAGES

README = ROOT / "README.md"
PAPERS = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
CODE = re.compile(r"^```[^\n]*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_fresh(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def code_in(page: Path) -> str:
    """Everything on a page that is set as code."""
    found = CODE.findall(page.read_text(encoding="utf-8"))
    return "\n".join(block or span for block, span in found)


def subcommands(command: Any) -> dict[str, Any]:
    """What may follow a command's name; nothing where it takes options only."""
    found: dict[str, Any] = getattr(command, "commands", {})
    return found


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAPERS, ids=lambda page: page.name)
def test_every_make_target_on_a_page_exists(page: Path) -> None:
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", code_in(page))) <= targets()


@pytest.mark.parametrize("page", PAPERS, ids=lambda page: page.name)
def test_every_command_on_a_page_exists(page: Path) -> None:
    unknown = []
    for line in re.findall(
        r"(?:^|[\s`(]|bin/)tollgate ((?:[a-z]+ ?)+)", code_in(page), re.MULTILINE
    ):
        below = subcommands(typer.main.get_command(terminal))
        for word in line.split():
            if not below:
                break
            if word not in below:
                unknown.append(f"tollgate {line.strip()}")
                break
            below = subcommands(below[word])
    assert unknown == []


@pytest.mark.parametrize("page", PAPERS, ids=lambda page: page.name)
def test_every_link_on_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_terminal_has_the_commands_that_we_look_for() -> None:
    found = subcommands(typer.main.get_command(terminal))
    assert "serve" in found
    assert "create" in subcommands(found["keys"])


def test_every_decision_is_in_the_index() -> None:
    folder = DOCS / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = [page.name for page in folder.glob("[0-9]*.md")]
    assert [name for name in sorted(pages) if f"({name})" not in index] == []
