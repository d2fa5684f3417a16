"""What a total comes to: sums kept whole, and what is divided only when somebody reads it."""

from typing import NamedTuple

from app.core.money import Nanos, divide_half_even


class Sums(NamedTuple):
    """The sums of some calls, in the order of `tables.MEASURES`."""

    calls: int
    errors: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    input_image_tokens: int
    output_image_tokens: int
    requests: int
    cost_nanos: int
    unpriced_calls: int
    latency_calls: int
    latency_us: int
    ttft_calls: int
    ttft_us: int

    def __add__(self, other: "Sums") -> "Sums":  # type: ignore[override]
        return Sums(*map(int.__add__, self, other))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def successes(self) -> int:
        return self.calls - self.errors

    @property
    def priced_calls(self) -> int:
        return self.calls - self.unpriced_calls

    @property
    def error_rate(self) -> float:
        """Failed calls in percent, with two decimals."""
        return percent(self.errors, self.calls)

    @property
    def avg_latency_ms(self) -> float | None:
        """The mean over the calls that carry a latency, with three decimals."""
        return mean_ms(self.latency_us, self.latency_calls)

    @property
    def avg_ttft_ms(self) -> float | None:
        """The mean over the calls that carry a time to the first token, with three decimals."""
        return mean_ms(self.ttft_us, self.ttft_calls)

    @property
    def cost_per_call(self) -> Nanos | None:
        """The mean cost of a call whose cost is known."""
        return _mean_cost(self.cost_nanos, self.priced_calls)

    @property
    def tokens_per_call(self) -> float | None:
        return round(self.tokens / self.calls, 3) if self.calls else None


NONE = Sums(*(0,) * len(Sums._fields))


def percent(part: int, whole: int) -> float:
    """A share in percent with two decimals; 0 of nothing."""
    return round(part * 100 / whole, 2) if whole else 0.0


def mean_ms(total_us: int, calls: int) -> float | None:
    """A mean in milliseconds with three decimals; None of nothing."""
    return round(total_us / calls / 1000, 3) if calls else None


def _mean_cost(nanos: int, calls: int) -> Nanos | None:
    return Nanos(divide_half_even(nanos, calls)) if calls else None
