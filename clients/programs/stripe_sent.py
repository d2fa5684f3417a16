"""An application that tells its calls through Stripe's client: v1, v2 and the stream, repeated."""

import os

from asked import USERS, flat
from stripe import StripeClient, StripeError


def client(key: str) -> StripeClient:
    """Stripe's client, pointed at the service."""
    url = os.environ["TOLLGATE_URL"]
    return StripeClient(key, base_addresses={"api": url, "meter_events": url})


def event(user: str, model: str = "gpt-4o-mini") -> dict[str, object]:
    """A call as a meter event: the quantity is all its tokens; what is in a payload is text."""
    call_id, said = flat(user, model)
    value = said["prompt_tokens"] + said["completion_tokens"]
    payload = {"value": value, "stripe_customer_id": user, **said}
    return {
        "event_name": "llm_tokens",
        "identifier": call_id,
        "payload": {name: str(one) for name, one in payload.items()},
    }


stripe = client(os.environ["TOLLGATE_KEY"])
for door in (stripe.v1.billing.meter_events, stripe.v2.billing.meter_events):
    for one in map(event, USERS):
        for _ in range(2):
            if door.create(one).identifier != one["identifier"]:
                raise SystemExit("answered with another event")
failed = event("ben", "no-such-model")
stripe.v1.billing.meter_events.create(failed)
session = stripe.v2.billing.meter_event_session.create()
stream = client(session.authentication_token).v2.billing.meter_event_stream
events = [event(user) for user in USERS]
for _ in range(2):
    stream.create({"events": events})
try:
    client("sk_wrong").v1.billing.meter_events.create(failed)
except StripeError as error:
    if error.http_status != 401:
        raise
else:
    raise SystemExit("a wrong key was taken")
