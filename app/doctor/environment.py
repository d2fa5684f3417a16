"""Whether the environment says what its author meant. Pure."""

from collections.abc import Mapping
from difflib import get_close_matches

from app.doctor.finding import Finding
from app.settings import Settings

CHECK = "settings"
PREFIX = "TOLLGATE_"


def known_names() -> list[str]:
    """Every variable that is read."""
    return [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]


def variables(environment: Mapping[str, str]) -> list[Finding]:
    """Name the variables that look like ours and are none: a misspelt one changes nothing."""
    known = known_names()
    given = [name for name in environment if name.upper().startswith(PREFIX)]
    unknown = sorted(name for name in given if name.upper() not in known)
    found = [Finding(CHECK, "warn", f"{name} is not a setting", _nearest(name)) for name in unknown]
    read = len(given) - len(unknown)
    return found or [Finding(CHECK, "ok", f"{read} variables are set, and all of them are read")]


def _nearest(name: str) -> str:
    near = get_close_matches(name.upper(), known_names(), 1, 0.6)
    return f"{near[0]} may be meant" if near else "remove it; docs/configuration.md lists them all"
