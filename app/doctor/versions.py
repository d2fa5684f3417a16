"""Whether what the service stands on is new enough."""

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version

import apsw
from sqlalchemy import text

from app.doctor.finding import Finding, Patient

CHECK = "versions"
PYTHON = (3, 11)
SQLITE = (3, 51, 3)
"""Older ones can corrupt a WAL when two connections checkpoint at once."""
POSTGRES = 14
_NUMBER = text("SHOW server_version_num")


async def versions(patient: Patient) -> list[Finding]:
    """Python, the database, and every library against what this release was made for."""
    found = [python(tuple(sys.version_info[:3]))]
    if patient.db.dialect == "sqlite":
        found.append(sqlite(apsw.sqlite_lib_version()))
    else:
        row = (await patient.db.read(lambda tx: tx.fetch(_NUMBER)))[0]
        found.append(postgres(int(row[0])))
    return [*found, libraries()]


def python(found: tuple[int, ...]) -> Finding:
    """Judge the interpreter."""
    said = f"Python {'.'.join(map(str, found))} on {platform.system()}"
    if found < PYTHON:
        return Finding(CHECK, "fail", said, "install Python 3.11 or newer")
    return Finding(CHECK, "ok", said)


def sqlite(found: str) -> Finding:
    """Judge the SQLite inside apsw."""
    if numbers(found) < SQLITE:
        return Finding(CHECK, "fail", f"SQLite {found}", "install apsw 3.51.3 or newer")
    return Finding(CHECK, "ok", f"SQLite {found}")


def postgres(number: int) -> Finding:
    """Judge a server by its `server_version_num`, such as 170002."""
    said = f"PostgreSQL {number // 10_000}.{number % 10_000}"
    if number < POSTGRES * 10_000:
        return Finding(CHECK, "fail", said, f"upgrade to PostgreSQL {POSTGRES} or newer")
    return Finding(CHECK, "ok", said)


def libraries() -> Finding:
    """Judge what is installed by what this release asks for."""
    try:
        wanted = [line for line in requires("tollgate") or () if ";" not in line]
    except PackageNotFoundError:
        return Finding(CHECK, "ok", "libraries are not judged: Tollgate is not installed by pip")
    wrong = [complaint for line in wanted if (complaint := _complaint(line))]
    if wrong:
        advice = "install what requirements.lock says: `make serve` does"
        return Finding(CHECK, "fail", "; ".join(wrong), advice)
    return Finding(CHECK, "ok", f"{len(wanted)} libraries are what this release asks for")


def _complaint(line: str) -> str:
    """What is wrong with the library that a requirement such as `httpx<0.29,>=0.28` names."""
    name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{name} is missing"
    return "" if allowed(found, line) else f"{name} is {found}, not {line.removeprefix(name)}"


_BOUND = re.compile(r"(>=|<=|==|<|>)\s*([0-9][0-9.]*)")


def allowed(found: str, line: str) -> bool:
    """Whether a version keeps within every bound of a requirement. Pure."""
    ours = numbers(found)
    for sign, bound in _BOUND.findall(line):
        its = numbers(bound)
        width = max(len(ours), len(its))
        here, there = (one + (0,) * (width - len(one)) for one in (ours, its))
        holds = {
            ">=": here >= there,
            "<=": here <= there,
            "==": here == there,
            "<": here < there,
            ">": here > there,
        }
        if not holds[sign]:
            return False
    return True


def numbers(said: str) -> tuple[int, ...]:
    """The leading numbers of a version: `3.53.1.0` is (3, 53, 1, 0)."""
    found = re.match(r"\d+(\.\d+)*", said)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
