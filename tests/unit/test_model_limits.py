"""How long an answer can be, by any name that a price would be found by."""

import pytest

from app.pricing.model_limits import max_output_tokens


@pytest.mark.parametrize(
    ("provider", "model", "tokens"),
    [
        ("openai", "gpt-4o-mini", 16_384),
        ("OpenAI", "openai/GPT-4o-mini-2024-07-18", 16_384),
        ("anthropic", "claude-sonnet-4-5", 64_000),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 64_000),
        (None, "openai/gpt-4o", 16_384),
        ("gemini", "gemini-2.5-flash", 65_536),
        ("acme", "roadrunner", None),
        ("openai", None, None),
        ("openai", "x" * 600, None),
    ],
)
def test_a_name_means_a_longest_answer(
    provider: str | None, model: str | None, tokens: int | None
) -> None:
    assert max_output_tokens(provider, model) == tokens
