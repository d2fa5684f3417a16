"""An application that tells its calls through OpenMeter's client: one by one, batched, repeated."""

import os

from asked import USERS, flat
from cloudevents.conversion import to_dict
from cloudevents.http import CloudEvent
from openmeter import Client

client = Client(endpoint=os.environ["TOLLGATE_URL"], token=os.environ["TOLLGATE_KEY"])


def event(user: str, model: str = "gpt-4o-mini") -> dict[str, object]:
    """A call that was made just now."""
    call_id, said = flat(user, model)
    attributes = {"type": "prompt", "source": "chat-service", "id": call_id, "subject": user}
    told: dict[str, object] = to_dict(CloudEvent(attributes, said))
    return told


for one in [*map(event, USERS), event("ben", "no-such-model")]:
    for _ in range(2):
        client.events.ingest_event(one)
many = [event(user) for user in USERS]
for _ in range(2):
    client.events.ingest_events(many)
