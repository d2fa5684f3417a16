"""Which provider and model a limit means, however callers spell them."""

import pytest

from app.limits.match import REMEMBERED, means


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (("xai", None), ("x-ai", "grok-4")),
        (("x-ai", None), ("xAI", "grok-4")),
        (("openai", "gpt-4o"), ("OpenAI", "GPT-4o")),
        (("openai", "gpt-4o"), ("openai", "openai/gpt-4o")),
        (("openai", "openai/gpt-4o"), ("openai", "gpt-4o")),
        ((None, "openai/gpt-4o"), ("openai", "gpt-4o")),
        ((None, "gpt-4o"), ("azure", "gpt-4o")),
        ((None, "openai/gpt-4o"), ("openrouter", "openai/gpt-4o")),
        (("openai", "gpt-4o"), ("", "openai/gpt-4o")),
        (("openai", None), ("litellm", "openai/gpt-4o")),
        ((None, "gpt-4o"), ("litellm", "openai/gpt-4o")),
        (("gemini", None), ("google", "gemini-2.5-pro")),
        (("nobody", "m/1"), ("nobody", "m/1")),
        ((None, None), ("", "")),
    ],
)
def test_names_that_mean_the_same(
    wanted: tuple[str | None, str | None], given: tuple[str, str]
) -> None:
    assert means(*wanted, *given)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (("openai", None), ("azure", "gpt-4o")),
        (("openai", None), ("", "gpt-4o")),
        (("openai", None), ("openrouter", "openai/gpt-4o")),
        (("openai", "gpt-4o"), ("openai", "gpt-4o-mini")),
        (("openai", "gpt-4o"), ("openai", "gpt-4o-2024-08-06")),
        ((None, "gpt-4o"), ("openai", "")),
        ((None, "openai/gpt-4o"), ("azure", "gpt-4o")),
    ],
)
def test_names_that_do_not(wanted: tuple[str | None, str | None], given: tuple[str, str]) -> None:
    assert not means(*wanted, *given)


def test_junk_names_do_not_fill_the_memory() -> None:
    for number in range(1_000):
        means("openai", None, "openai", f"junk-{number}")
    assert means.cache_info().maxsize == REMEMBERED
