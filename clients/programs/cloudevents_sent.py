"""An application that tells its calls as CloudEvents: structured, binary and repeated."""

import os

import requests
from cloudevents.v1.conversion import to_binary, to_structured
from cloudevents.v1.http import CloudEvent
from openai import OpenAI

client = OpenAI(base_url=os.environ["MODEL_URL"] + "/v1", api_key="sk-ada", max_retries=0)
address = os.environ["TOLLGATE_URL"] + "/api/v1/events"
key = {"Authorization": f"Bearer {os.environ['TOLLGATE_KEY']}"}

for turn, shaped in enumerate((to_structured, to_binary, to_structured, to_binary)):
    user = ("ada", "ben")[turn % 2]
    answer = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "Say words."}], user=user
    )
    usage = answer.usage
    event = CloudEvent(
        {"type": "prompt", "source": "chat-service", "id": answer.id, "subject": user},
        {
            "provider": "openai",
            "model": "gpt-4o-mini",
            "input_tokens": usage.prompt_tokens,
            "cached_input_tokens": usage.prompt_tokens_details.cached_tokens,
            "output_tokens": usage.completion_tokens,
        },
    )
    headers, body = shaped(event)
    for _ in range(2):
        requests.post(address, headers=headers | key, data=body, timeout=30).raise_for_status()
