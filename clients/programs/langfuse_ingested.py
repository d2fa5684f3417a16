"""An application traced by Langfuse's second SDK: by hand, decorated, and through its OpenAI."""

import os

from asked import ask

os.environ |= {
    "LANGFUSE_HOST": os.environ["TOLLGATE_URL"],
    "LANGFUSE_PUBLIC_KEY": "anything",
    "LANGFUSE_SECRET_KEY": os.environ["TOLLGATE_KEY"],
}

from langfuse import Langfuse
from langfuse.decorators import langfuse_context, observe
from langfuse.openai import OpenAI, openai
from openai import NotFoundError

MODEL = "gpt-4o-mini"
ASKED = [{"role": "user", "content": "Say words."}]
langfuse = Langfuse()


def by_hand(user: str) -> None:
    """A trace whose generation is created, and ended with the usage of OpenAI."""
    trace = langfuse.trace(name="chat", user_id=user, session_id="s1")
    generation = trace.generation(name="words", model=MODEL, input=ASKED)
    _, answer = ask(user)
    generation.end(output=answer["choices"], usage_details=answer["usage"])
    trace.score(name="quality", value=1)


def in_parts(user: str) -> None:
    """The same with Langfuse's own names, whose parts do not overlap; its user is told last."""
    trace = langfuse.trace(name="chat")
    generation = trace.generation(name="words", model=MODEL)
    _, answer = ask(user)
    usage = answer["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    reasoned = usage["completion_tokens_details"]["reasoning_tokens"]
    generation.end(
        usage_details={
            "input": usage["prompt_tokens"] - cached,
            "input_cached_tokens": cached,
            "output": usage["completion_tokens"] - reasoned,
            "output_reasoning_tokens": reasoned,
        }
    )
    langfuse.flush()
    trace.update(user_id=user)


@observe(as_type="generation")
def decorated(user: str) -> None:
    """A function that is a generation."""
    _, answer = ask(user)
    langfuse_context.update_current_trace(user_id=user)
    langfuse_context.update_current_observation(model=MODEL, usage_details=answer["usage"])


def through_openai(user: str) -> None:
    """Langfuse's own OpenAI: an answer, a stream, and a refusal."""
    url, key = os.environ["MODEL_URL"] + "/v1", f"sk-{user}"
    client = OpenAI(base_url=url, api_key=key, max_retries=0)
    asked = {"model": MODEL, "messages": ASKED, "user": user, "user_id": user}
    client.chat.completions.create(**asked)
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    for _ in client.chat.completions.create(**asked, **streamed):
        pass
    try:
        client.chat.completions.create(**asked | {"model": "no-such-model"})
    except NotFoundError:
        return
    raise SystemExit("an unknown model was served")


for user in ("ada", "ben"):
    by_hand(user)
    in_parts(user)
    decorated(user)
    through_openai(user)
langfuse.flush()
langfuse_context.flush()
openai.flush_langfuse()
