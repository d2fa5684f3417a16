"""Spellings: which ones mean an entry, which ones only look like it."""

from datetime import UTC, datetime

import pytest

from app.pricing.catalog import Catalog
from app.pricing.names import provider_id
from app.pricing.quote import rows_of
from app.pricing.rows import Alias
from tests.unit.priced import usage

CATALOG = Catalog.from_packages()
AT = datetime(2026, 11, 18, 12, tzinfo=UTC)


TOKENS = usage(input_tokens=1_000, output_tokens=100)


@pytest.mark.parametrize(
    ("provider", "model", "entry"),
    [
        ("openai", " GPT-4o ", "openai/gpt-4o"),
        ("OpenAI", "openai/gpt-4o", "openai/gpt-4o"),
        ("openai", "openai:gpt-4o", "openai/gpt-4o"),
        (None, "openai/gpt-4o", "openai/gpt-4o"),
        ("litellm", "anthropic/claude-opus-4-8", "anthropic/claude-opus-4-8"),
        ("gemini", "models/gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("vertex_ai", "publishers/google/models/gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("azure_openai", "gpt-4o", "openai/gpt-4o"),
        ("hf", "openai/gpt-oss-120b:groq", "huggingface_groq/openai/gpt-oss-120b"),
        ("huggingface_groq", "openai/gpt-oss-120b", "huggingface_groq/openai/gpt-oss-120b"),
        (None, "huggingface/openai/gpt-oss-120b:groq", "huggingface_groq/openai/gpt-oss-120b"),
        ("openai", "gpt-5.4-20260305", "openai/gpt-5.4"),
        ("openai", "gpt-4o-2031-01-01", "openai/gpt-4o"),
        ("anthropic", "claude-haiku-4-5-20251001", "anthropic/claude-haiku-4-5"),
        ("anthropic", "claude-sonnet-4-20250514", "anthropic/claude-sonnet-4-0"),
        ("vertex", "claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5"),
        ("openai", "ft:gpt-4o-2024-08-06:acme::1", "openai/ft:gpt-4o"),
        ("perplexity", "perplexity/sonar", "perplexity/perplexity/sonar"),
        ("perplexity", "perplexity/perplexity/sonar", "perplexity/perplexity/sonar"),
        ("vertex_ai-language-models", "gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("google.generative-ai", "gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("anthropic.messages", "claude-opus-4-8", "anthropic/claude-opus-4-8"),
        ("xai.responses", "grok-4.5", "x-ai/grok-4.5"),
        ("open_ai", "gpt-4o", "openai/gpt-4o"),
        ("azure", "gpt-35-turbo", "openai/gpt-3.5-turbo"),
        ("azure", "gpt-35-turbo-instruct", "extract/azure/gpt-35-turbo-instruct"),
        ("alibaba", "qwen3-max", "extract/dashscope/qwen3-max"),
        ("qwen", "qwen/qwen-plus", "extract/dashscope/qwen-plus"),
        ("alibaba.chat", "alibaba/qwen-plus", "extract/dashscope/qwen-plus"),
        (None, "dashscope/qwen-plus", "extract/dashscope/qwen-plus"),
        (
            "togethercomputer",
            "togethercomputer/openai/gpt-oss-20b",
            "extract/together/openai/gpt-oss-20b",
        ),
    ],
)
def test_spellings_of_one_model_are_priced_by_its_entry(
    provider: str | None, model: str, entry: str
) -> None:
    quote = CATALOG.quote(provider, model, AT, TOKENS, None)
    assert quote.status == "priced"
    assert rows_of(quote.price_ref)[0].split("#")[0] == entry


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-sonnet-4-5-nonsense"),
        ("google", "gemini-2.5-pro-nonsense"),
        (None, "gpt-4o"),
        ("openai", "ft:gpt-5.1:acme::1"),
        ("bedrock", "us-west-2/anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("bedrock", "bedrock/us-east-1/anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("azure", "gpt-35-turbo-1106"),
        ("openrouter", "openai/gpt-4o:online"),
        ("openrouter", "openai/gpt-oss-120b:nitro"),
        ("azure", "azure/gpt-35-turbo-0613"),
    ],
)
def test_a_name_that_goes_beyond_a_known_one_is_only_estimated(
    provider: str | None, model: str
) -> None:
    assert CATALOG.quote(provider, model, AT, TOKENS, None).status == "estimated"


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4oo"),
        ("openai", "anthropic/claude-opus-4-8"),
        ("selfhosted", "gpt-4o"),
        ("huggingface", "openai/gpt-oss-120b"),
        ("huggingface", "openai/gpt-oss-120b:nobody"),
        (None, "nobody/nothing"),
        (None, None),
        ("openai", "x" * 100_000),
        ("cerebras", "qwen-3-coder-480b"),
        ("openrouter", "openai/gpt-4o:free"),
        ("openrouter", "acme/nothing:nitro"),
    ],
)
def test_what_is_not_known_is_unpriced(provider: str | None, model: str | None) -> None:
    assert CATALOG.quote(provider, model, AT, TOKENS, None) == (None, "unpriced", "")


@pytest.mark.parametrize(
    ("provider", "entry"),
    [
        ("gemini", "google/gemini-2.5-flash"),
        ("openai", "openai/gpt-4o-mini"),
        ("anthropic", "anthropic/claude-3-5-sonnet"),
        ("mistral", "huggingface_groq/openai/gpt-oss-120b"),
        ("huggingface", "huggingface_groq/openai/gpt-oss-120b"),
    ],
)
def test_a_call_without_a_model_is_estimated_by_its_providers_default(
    provider: str, entry: str
) -> None:
    quote = CATALOG.quote(provider, " ", AT, TOKENS, None)
    assert quote.status == "estimated"
    assert rows_of(quote.price_ref)[0] == entry


def test_a_default_model_that_the_operator_states_is_no_guess() -> None:
    stated = CATALOG.with_changes((), [Alias("one", "OpenAI", None, "gpt-4o")])
    quote = stated.quote("openai", None, AT, TOKENS, None)
    assert (quote.status, rows_of(quote.price_ref)[0]) == ("priced", "openai/gpt-4o")
    assert stated.quote("openai", "gpt-4.1", AT, TOKENS).price_ref.startswith("openai/gpt-4.1")


def test_names_of_one_provider_meet_in_one_id() -> None:
    assert {provider_id(name) for name in ("gemini", "Vertex_AI", "gcp.gemini")} == {"google"}
    assert {provider_id(name) for name in ("xai", "x-ai", "x_ai")} == {"x-ai"}
    assert {provider_id(name) for name in ("alibaba", "Alibaba Cloud", "qwen")} == {"dashscope"}
    assert provider_id("together_ai") == "together"
    assert {provider_id(name) for name in ("exa", "exa_ai", "Exa.ai")} == {"exa"}
    assert {provider_id(name) for name in ("fal", "fal_ai", "fal.ai")} == {"fal-ai"}
    assert provider_id("fireworks_ai-embedding-models") == "fireworks"
    assert provider_id("acme-models") == "acme-models"
    assert provider_id("acme.chat") == "acme"
