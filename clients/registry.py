"""Which programs are run, in which environment, and what each of them never tells."""

from typing import NamedTuple

CACHED = "cached tokens"
FAILURES = "failed calls"
RESPONSES = "Responses API"


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
        silent=frozenset({CACHED, FAILURES}),
    ),
    Client("litellm generic_api", "litellm", "litellm", "litellm_sdk.py", "generic_api"),
    Client(
        *("litellm otel v2", "litellm", "litellm", "litellm_sdk.py", "otel"),
        extra=(("LITELLM_OTEL_V2", "true"), ("OTEL_RESOURCE_ATTRIBUTES", "user.id=ada")),
    ),
    Client(
        "openai-v2",
        "opentelemetry-instrumentation-openai-v2",
        *("otel", "openai_traced.py", "openai-v2"),
        silent=frozenset({CACHED, RESPONSES}),
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
    ),
    Client(
        "traceloop anthropic",
        "opentelemetry-instrumentation-anthropic",
        *("otel", "anthropic_traced.py"),
    ),
    Client("cloudevents", "cloudevents", "otel", "cloudevents_sent.py"),
    Client("@openmeter/sdk", "@openmeter/sdk", "node", "openmeter_sent.mjs"),
    Client("gemini cli", "@google/gemini-cli", "node", "gemini.sh"),
    Client("codex", "@openai/codex", "node", "codex.sh"),
    Client("claude code", "@anthropic-ai/claude-code", "node", "claude.sh"),
    Client(
        *("litellm proxy openmeter", "litellm", "litellm", "litellm_proxy.py", "openmeter"),
        silent=frozenset({CACHED, FAILURES}),
    ),
    Client(*("litellm proxy generic_api", "litellm", "litellm", "litellm_proxy.py", "generic_api")),
    Client(
        *("litellm proxy otel v2", "litellm", "litellm", "litellm_proxy.py", "otel"),
        extra=(("LITELLM_OTEL_V2", "true"),),
    ),
)
