"""Who may use the proxy: the key is `sk-` and the person's name."""

from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth


async def authenticate(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Let everyone in under the name in the key."""
    name = api_key.removeprefix("sk-")
    return UserAPIKeyAuth(api_key=api_key, user_id=name, team_id="writers")
