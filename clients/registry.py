"""Which programs are run, in which environment, and what each of them never tells."""

from typing import NamedTuple

CACHED = "cached tokens"
WRITTEN = "tokens written to a cache"
REASONING = "reasoning tokens"
FAILURES = "failed calls"
RESPONSES = "Responses API"
PARTS = frozenset({CACHED, WRITTEN, REASONING})


class Client(NamedTuple):
    """A program to run: `package` is whose version counts, `silent` is what it does not tell."""

    name: str
    package: str
    environment: str
    script: str
    argument: str = ""
    silent: frozenset[str] = frozenset()
    extra: tuple[tuple[str, str], ...] = ()


CLIENTS = (
    Client(
        *("litellm openmeter", "litellm", "litellm", "litellm_sdk.py", "openmeter"),
        silent=PARTS | {FAILURES},
    ),
    Client("litellm generic_api", "litellm", "litellm", "litellm_sdk.py", "generic_api"),
    Client(
        *("litellm otel v2", "litellm", "litellm", "litellm_sdk.py", "otel"),
        silent=frozenset({REASONING}),
        extra=(("LITELLM_OTEL_V2", "true"), ("OTEL_RESOURCE_ATTRIBUTES", "user.id=ada")),
    ),
    Client(
        "openai-v2",
        "opentelemetry-instrumentation-openai-v2",
        *("otel", "openai_traced.py", "openai-v2"),
        silent=PARTS | {RESPONSES},
    ),
    Client(
        "openinference",
        "openinference-instrumentation-openai",
        *("otel", "openai_traced.py", "openinference"),
    ),
    Client(
        "traceloop openai",
        "opentelemetry-instrumentation-openai",
        *("otel", "openai_traced.py", "traceloop"),
        silent=frozenset({REASONING}),
    ),
    Client(
        "traceloop anthropic",
        "opentelemetry-instrumentation-anthropic",
        *("otel", "anthropic_traced.py"),
    ),
    Client("pydantic ai", "pydantic-ai-slim", "pydantic", "pydantic_ai_traced.py"),
    Client("logfire", "logfire", "pydantic", "logfire_traced.py"),
    Client("openai agents", "openai-agents", "openai-agents", "openai_agents_traced.py"),
    Client(
        *("langsmith", "langsmith", "langchain", "langchain_traced.py", "langsmith"),
        extra=(
            ("LANGSMITH_TRACING", "true"),
            ("LANGSMITH_OTEL_ENABLED", "true"),
            ("LANGSMITH_OTEL_ONLY", "true"),
            ("LANGSMITH_API_KEY", "none"),
        ),
    ),
    Client(
        "langchain openinference",
        "openinference-instrumentation-langchain",
        *("langchain", "langchain_traced.py", "openinference"),
    ),
    Client("langfuse", "langfuse", "langfuse", "langfuse_traced.py"),
    Client(
        *("vercel ai", "ai", "node", "vercel_traced.mjs"),
        silent=frozenset({REASONING}),
    ),
    Client(
        *("cloudevents", "cloudevents", "otel", "cloudevents_sent.py"),
        silent=frozenset({REASONING}),
    ),
    Client(
        *("@openmeter/sdk", "@openmeter/sdk", "node", "openmeter_sent.mjs"),
        silent=frozenset({REASONING}),
    ),
    Client("cloudevents js", "cloudevents", "node", "cloudevents_sent.mjs"),
    Client("openmeter", "openmeter", "doors", "openmeter_sent.py"),
    Client("lago", "lago-python-client", "doors", "lago_sent.py"),
    Client("lago js", "lago-javascript-client", "node", "lago_sent.mjs"),
    Client("stripe", "stripe", "doors", "stripe_sent.py"),
    Client("stripe js", "stripe", "node", "stripe_sent.mjs"),
    Client("langfuse 2", "langfuse", "doors", "langfuse_ingested.py"),
    Client("langfuse js 3", "langfuse", "node", "langfuse_ingested.mjs"),
    Client("langchain langfuse 2", "langchain", "doors", "langchain_langfuse.py"),
    Client("gemini cli", "@google/gemini-cli", "node", "gemini.sh"),
    Client("codex", "@openai/codex", "node", "codex.sh"),
    Client("claude code", "@anthropic-ai/claude-code", "node", "claude.sh"),
    Client(
        *("litellm proxy openmeter", "litellm", "litellm", "litellm_proxy.py", "openmeter"),
        silent=PARTS | {FAILURES},
    ),
    Client(*("litellm proxy generic_api", "litellm", "litellm", "litellm_proxy.py", "generic_api")),
    Client(
        *("litellm proxy otel v2", "litellm", "litellm", "litellm_proxy.py", "otel"),
        silent=frozenset({REASONING}),
        extra=(("LITELLM_OTEL_V2", "true"),),
    ),
)
