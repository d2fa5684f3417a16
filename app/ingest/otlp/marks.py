"""What marks a span as a model call, and which model it names. Pure."""

from typing import Any

from app.ingest.otlp.spans import Attributes
from app.ingest.otlp.usage import INPUT, OUTPUT
from app.ingest.otlp.values import clean, count_in, object_in, text_in

NO_CALLS = frozenset(
    {
        *("invoke_agent", "agent_step", "create_agent", "invoke_workflow", "execute_tool"),
        *("plan", "retrieval", "fetch_response", "agent", "agent_run", "agent_handoff", "handoff"),
        *("framework", "workflow", "workflow_run", "task", "chain", "tool", "tool_execution"),
        *("guardrail", "evaluate", "evaluation", "vectordb", "search_memory", "create_memory"),
        *("update_memory", "delete_memory", "create_thread", "create_message", "list_messages"),
        *("start_thread_run", "get_thread_run", "list_run_steps", "submit_tool_outputs"),
    }
)
"""Operations that hold model calls, look at one again or lead to one, and are none."""
KINDS = (
    *("openinference.span.kind", "langfuse.observation.type", "gen_ai.span.kind"),
    *("langsmith.span.kind", "mlflow.spanType"),
)
_CALLS = {
    **dict.fromkeys(("LLM", "GENERATION", "CHAT_MODEL"), "chat"),
    **dict.fromkeys(("EMBEDDING", "EMBEDDINGS"), "embeddings"),
}
_WRAPPERS = (*KINDS, "traceloop.span.kind", "ai.operationId")
"""What has one of these, and is no call by it, is something around calls."""
BILLED_MODEL = (
    *("litellm.provider.model", "gen_ai.response.model", "llm.response.model"),
    *("ai.response.model", "llm.model_name", "embedding.model_name"),
    *("langfuse.observation.model.name", "gen_ai.request.model", "llm.request.model"),
    *("ai.model.id", "gen_ai.model_name"),
)
PROVIDER = (
    *("gen_ai.provider.name", "gen_ai.system", "litellm.provider", "llm.provider", "llm.system"),
    *("ai.model.provider", "mlflow.llm.provider", "langsmith.metadata.ls_provider"),
)
_NAMED = ("gen_ai.request.model", "gen_ai.response.model")
_MLFLOW = ("mlflow.llm.model", "mlflow.spanOutputs", "mlflow.spanInputs")
_UNMARKED = "logfire"
_BY_LOGS = "codex"
"""The beginning of a scope whose log records tell of the calls, so that its spans need not."""


def operation_of(attributes: Attributes, scope: str = "", *, failed: bool = False) -> str:
    """The kind of model call, such as `chat`; empty where this is no model call.

    A call names its model and is marked as one: by its operation, by the kind that OpenInference,
    Langfuse, MLflow and others give it, as the innermost step of Vercel's SDK, by the older mark of
    Traceloop, or, without any mark, by telling provider and tokens too. Of one that failed Logfire
    has neither mark nor tokens.
    """
    operation = text_in(attributes, ("gen_ai.operation.name",), 128)
    if not operation:
        kind = text_in(attributes, KINDS, 64).strip('"').upper()
        operation = "" if _prepares(attributes) else _CALLS.get(kind, "")
    if not operation:
        step = text_in(attributes, ("ai.operationId",), 128).rpartition(".")[2]
        if step.startswith("do") and step[2:3].isupper():
            operation = "embeddings" if step.startswith("doEmbed") else "chat"
    operation = operation or text_in(attributes, ("llm.request.type",), 128)
    uncounted = failed and scope.startswith(_UNMARKED)
    if not operation and not scope.startswith(_BY_LOGS) and _tells_of_a_call(attributes, uncounted):
        operation = "chat"
    if operation.lower() in NO_CALLS or not (operation and model_of(attributes)):
        return ""
    return operation


def _prepares(attributes: Attributes) -> bool:
    """Whether only a request came out of it, which LlamaIndex marks as it marks the call itself."""
    return (
        count_in(attributes, INPUT) is None
        and attributes.get("output.mime_type") == "application/json"
        and "messages" in object_in(attributes, "output.value")
    )


def _tells_of_a_call(attributes: Attributes, uncounted: bool) -> bool:
    """Whether a span without a mark says all that one of a call does, as Google's ADK's do."""
    counted = uncounted or (
        count_in(attributes, INPUT) is not None and count_in(attributes, OUTPUT) is not None
    )
    return (
        counted
        and bool(text_in(attributes, _NAMED))
        and bool(text_in(attributes, PROVIDER))
        and not text_in(attributes, _WRAPPERS)
    )


def model_of(attributes: Attributes) -> str:
    """The model that is billed: what answered where that is said, else what was asked for."""
    found = text_in(attributes, BILLED_MODEL)
    if not found:
        asked: Any = object_in(attributes, "llm.invocation_parameters").get("model")
        found = clean(asked) if isinstance(asked, str) else ""
    return found or _mlflows_model(attributes)


def _mlflows_model(attributes: Attributes) -> str:
    """MLflow writes every value as JSON, and the model in what went in and came out."""
    first, *others = _MLFLOW
    if named := text_in(attributes, (first,)).strip('"'):
        return named
    told: list[Any] = [object_in(attributes, name).get("model") for name in others]
    return next((clean(one) for one in told if isinstance(one, str) and one), "")
