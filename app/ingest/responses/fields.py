"""What a JSON object says, checked at the moment it is read; every refusal names its place."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from app.core.counters import MAX_COUNT, MICROS_PER_SECOND
from app.core.errors import InvalidInput
from app.core.money import CEILING, NANOS_PER_USD

LONGEST_TEXT = 256
LONGEST_COUNT = len(str(MAX_COUNT))
LONGEST_SECONDS = 10**9
MOST_ITEMS = 100_000


@dataclass(frozen=True, slots=True)
class Block:
    """One JSON object and where it stands. Null, absent and empty mean the same: not said."""

    values: Mapping[str, object]
    pointer: str

    def refuse(self, key: str, detail: str) -> InvalidInput:
        """The refusal of what stands under a key."""
        return InvalidInput.at(f"{self.pointer}/{key}", detail)

    def has(self, *keys: str) -> bool:
        """Whether any of the keys says something."""
        values = self.values
        for key in keys:  # noqa: SIM110  (a generator takes twice as long)
            if values.get(key) is not None:
                return True
        return False

    def count(self, *keys: str) -> int | None:
        """The first count that is said, a whole number from 0 to 2^53-1."""
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if type(value) is not int:
                value = _whole(value)
            if value is None or not 0 <= value <= MAX_COUNT:
                raise self.refuse(key, "a whole number from 0 to 2^53-1 was looked for")
            return value
        return None

    def largest(self, *keys: str) -> int:
        """The largest count said under any of the keys, which name the same thing; else 0."""
        most = 0
        for key in keys:
            if self.values.get(key) is not None:
                most = max(most, self.count(key) or 0)
        return most

    def text(self, *keys: str) -> str | None:
        """The first string that is said, printable and at most 256 characters long."""
        for key in keys:
            value = self.values.get(key)
            if value is None or value == "":
                continue
            if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
                raise self.refuse(key, "a short printable string was looked for")
            return value
        return None

    def block(self, *keys: str) -> "Block":
        """The first object that is said, an empty one where none is."""
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if not isinstance(value, dict):
                raise self.refuse(key, "an object was looked for")
            return Block(value, f"{self.pointer}/{key}")
        return Block({}, f"{self.pointer}/{keys[0]}")

    def blocks(self, *keys: str) -> list["Block"]:
        """The objects of the first list that is said."""
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if not isinstance(value, list) or len(value) > MOST_ITEMS:
                raise self.refuse(key, "a list of objects was looked for")
            found = []
            for place, item in enumerate(value):
                if not isinstance(item, dict):
                    raise self.refuse(f"{key}/{place}", "an object was looked for")
                found.append(Block(item, f"{self.pointer}/{key}/{place}"))
            return found
        return []

    def micros(self, *keys: str) -> int | None:
        """The first duration that is said in seconds, as microseconds; at most 10^9 s."""
        for key in keys:
            if self.values.get(key) is not None:
                seconds = self._number(key, "seconds")
                if seconds > LONGEST_SECONDS:
                    raise self.refuse(key, "at most 10^9 seconds can be recorded")
                return round(seconds * MICROS_PER_SECOND)
        return None

    def nanos(self, *keys: str) -> int | None:
        """The first amount of USD that is said, as nano-dollars rounded half to even."""
        for key in keys:
            if self.values.get(key) is not None:
                usd = self._number(key, "US dollars")
                if usd * NANOS_PER_USD > CEILING:
                    raise self.refuse(key, "money beyond $9.2 billion cannot be recorded")
                return round(usd * NANOS_PER_USD)
        return None

    def _number(self, key: str, unit: str) -> Fraction:
        """What was written, exactly; `round` of it goes half to even."""
        value = self.values[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(key, f"a number of {unit} was looked for")
        if not 0 <= value <= CEILING:
            raise self.refuse(key, f"a number of {unit} from 0 to 2^63-1 was looked for")
        return Fraction(str(value))


def _whole(value: object) -> int | None:
    """A count that some clients write as 12.0 or "12"; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) <= LONGEST_COUNT:
        return int(value) if value.isascii() and value.isdigit() else None
    return None
