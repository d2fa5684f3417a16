"""Every page, for the application to include."""

from fastapi import APIRouter

from app.dashboard import (
    alerts_api,
    archives_api,
    assets,
    keys_api,
    limits_api,
    overview_api,
    plans_api,
    prices_api,
    sign_in_api,
    system_api,
    user_api,
    user_events_api,
    user_moves_api,
    users_api,
    webhooks_api,
)

router = APIRouter(include_in_schema=False)
for part in (
    *(assets, sign_in_api, overview_api, users_api),
    *(user_moves_api, user_events_api, user_api, prices_api),
    *(plans_api, limits_api, webhooks_api, alerts_api, archives_api, keys_api, system_api),
):
    router.include_router(part.router)
