"""The package stands alone: light, typed, and without a line of the service."""

import ast
import sys
import tomllib
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "tollgate_client"


def test_it_imports_httpx_and_nothing_else_from_outside() -> None:
    found = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
    assert found - sys.stdlib_module_names == {"httpx", "tollgate_client"}
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert [one.split(">")[0] for one in project["dependencies"]] == ["httpx"]


def test_it_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
