"""What a row of the table says: two series measured in turns, and the ratio between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, NamedTuple

from rich.table import Table
from rich.text import Text

from benchmarks.load import Measured


class Target(NamedTuple):
    """What a row is held to: a ratio to its baseline, or a plain value."""

    of: Literal["ratio", "value"]
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, found: float) -> bool:
        above = self.at_least is None or found >= self.at_least
        return above and (self.at_most is None or found <= self.at_most)


@dataclass(frozen=True)
class Row:
    """One line of the table. `subject[i]` and `baseline[i]` were measured next to each other."""

    name: str
    title: str
    unit: str
    subject: Sequence[float]
    target: Target
    versus: str = ""
    baseline: Sequence[float] = ()
    faster_is: Literal["more", "less"] = "more"
    notes: Mapping[str, object] = field(default_factory=dict)
    problems: Sequence[str] = ()

    def ratios(self) -> list[float]:
        """How many times the baseline's speed, pair by pair."""
        pairs = zip(self.subject, self.baseline, strict=bool(self.baseline))
        return [
            ours / theirs if self.faster_is == "more" else theirs / ours
            for ours, theirs in pairs
            if ours and theirs
        ]

    def judged(self) -> float | None:
        """The number that the target speaks of, or None where nothing was measured."""
        found = self.ratios() if self.target.of == "ratio" else list(self.subject)
        return median(found) if found else None

    def is_met(self) -> bool:
        judged = self.judged()
        return judged is not None and self.target.is_met(judged)

    def is_sound(self) -> bool:
        """Whether every number is positive and nothing went wrong; says nothing about speed."""
        measured = [*self.subject, *self.baseline]
        return not self.problems and bool(self.subject) and all(value > 0 for value in measured)

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "subject": list(self.subject),
            "versus": self.versus,
            "baseline": list(self.baseline),
            "ratios": self.ratios(),
            "target": self.target._asdict(),
            "judged": self.judged(),
            "met": self.is_met(),
            "notes": dict(self.notes),
            "problems": list(self.problems),
        }


def not_measured(name: str, title: str, target: Target, reason: str) -> Row:
    return Row(name, title, "", (), target, problems=(reason,))


def problems_of(lane: str, passes: Sequence[Measured]) -> list[str]:
    """Every answer that was not the expected one."""
    return [f"{lane}: {count}x {text}" for each in passes for text, count in each.errors.items()]


def number(value: float, unit: str) -> str:
    if not value:
        return "-"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def _target(target: Target) -> str:
    sign, bound = ("≥", target.at_least) if target.at_least is not None else ("≤", target.at_most)
    return f"{sign} {bound:g}" + ("x" if target.of == "ratio" else "")


def _ratio(row: Row) -> str:
    ratios = row.ratios()
    if not ratios:
        return "-"
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}x"
    return f"{median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"


def table(rows: Sequence[Row]) -> Table:
    shown = Table(title="Tollgate, measured against its baselines in this run")
    shown.add_column("row")
    shown.add_column("Tollgate", justify="right")
    shown.add_column("baseline", justify="right")
    shown.add_column("ratio (min-max)", justify="right")
    shown.add_column("target", justify="right")
    shown.add_column("met")
    for row in rows:
        if row.judged() is None:
            verdict = Text("not measured", style="red")
        elif not row.is_sound():
            verdict = Text("invalid", style="red")
        else:
            verdict = Text("yes", style="green") if row.is_met() else Text("no", style="red")
        shown.add_row(
            row.title,
            number(median(row.subject), row.unit) if row.subject else "-",
            f"{row.versus} {number(median(row.baseline), row.unit)}" if row.baseline else "-",
            _ratio(row),
            _target(row.target),
            verdict,
        )
    return shown
