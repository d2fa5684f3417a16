"""Remember a bounded number of answers, whatever is asked."""

from typing import Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")


class Memo(Generic[Key, Answer]):
    """Keep the answers of at most `size` keys, those in use before those asked once.

    Two generations: a full young one becomes the old one, and what is asked again moves up. A flood
    of new keys drops a whole generation by one assignment, and costs a key in use one move. Losing
    an answer to a race between threads only means working it out again.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, size: int) -> None:
        self._half = size // 2
        self._young: dict[Key, Answer] = {}
        self._old: dict[Key, Answer] = {}

    def get(self, key: Key) -> Answer | None:
        """The answer, if it is still here."""
        answer = self._young.get(key)
        if answer is None:
            answer = self._old.get(key)
            if answer is not None:
                self.put(key, answer)
        return answer

    def put(self, key: Key, answer: Answer) -> None:
        """Remember an answer, and perhaps forget the least used half of all."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = answer

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
