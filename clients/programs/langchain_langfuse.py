"""An application of LangChain's, traced by the callback of Langfuse's second SDK."""

import os

from langchain_openai import ChatOpenAI
from langfuse.callback import CallbackHandler
from openai import NotFoundError


def traced(user: str) -> CallbackHandler:
    """The callback for calls that are this user's."""
    return CallbackHandler(
        public_key="anything",
        secret_key=os.environ["TOLLGATE_KEY"],
        host=os.environ["TOLLGATE_URL"],
        user_id=user,
        session_id="s1",
    )


for user in ("ada", "ben"):
    handler = traced(user)
    url, key = os.environ["MODEL_URL"] + "/v1", f"sk-{user}"
    told = {"callbacks": [handler]}
    chat = ChatOpenAI(model="gpt-4o-mini", base_url=url, api_key=key, max_retries=0)
    chat.invoke("Say words.", told)
    for _ in chat.stream("Say words.", told, stream_usage=True):
        pass
    wrong = ChatOpenAI(model="no-such-model", base_url=url, api_key=key, max_retries=0)
    try:
        wrong.invoke("Say words.", told)
    except NotFoundError:
        handler.flush()
    else:
        raise SystemExit("an unknown model was served")
