"""An application that tells its calls through Lago's client: one by one, as a batch, repeated."""

import os
import time

from asked import USERS, flat
from lago_python_client import Client
from lago_python_client.models import BatchEvent, Event

client = Client(api_key=os.environ["TOLLGATE_KEY"], api_url=os.environ["TOLLGATE_URL"])


def event(user: str, model: str = "gpt-4o-mini") -> Event:
    """A call that was made just now."""
    call_id, said = flat(user, model)
    return Event(
        transaction_id=call_id,
        external_subscription_id=user,
        code="llm_tokens",
        timestamp=time.time(),
        properties=said,
    )


for one in [*map(event, USERS), event("ben", "no-such-model")]:
    for _ in range(2):
        told = client.events.create(one)
        if told.transaction_id != one.transaction_id:
            raise SystemExit("answered with another event")
many = BatchEvent(events=[event(user) for user in USERS])
for _ in range(2):
    client.events.batch_create(many)
