"""What the rules read: the files of the application, and which domain a table lives in."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from app.db.types import Base

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
SOURCES = tuple(sorted(APP.rglob("*.py")))
RIVER: list[str] = next(
    contract["layers"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    if contract["type"] == "layers"
)
"""The layers, highest first, as the import rules have them."""


def name_of(path: Path) -> str:
    """A file as people write it: `app/db/engine.py`."""
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    """The file's syntax."""
    return ast.parse(path.read_text(encoding="utf-8"))


def methods_called(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """Each call of an attribute: what it is called on, its name, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield ast.unparse(node.func.value), node.func.attr, node.lineno


def strings_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every string that is not a docstring, f-strings piece by piece, with its line."""
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in docstrings:
            continue
        if isinstance(node.value, str):
            yield node.value, node.lineno


def homes() -> dict[str, str]:
    """The package under `app` that each table is defined in."""
    return {
        mapper.local_table.name: mapper.class_.__module__.split(".")[1]  # type: ignore[attr-defined]
        for mapper in Base.registry.mappers
    }
