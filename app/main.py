"""Put the service together."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from app.access import changes_api, keys_api
from app.alerts import api as alerts_api
from app.alerts import limit_api, rule_api, webhook_api
from app.analytics import api as analytics_api
from app.analytics import costs_api, drift_api, exports_api, metrics_api, query_api, rebuild_api
from app.core.errors import Unavailable
from app.dashboard.mount import Dashboard
from app.dashboard.tries import Tries
from app.db.migrate import status_of_schema
from app.ingest import api as ingest_api
from app.ingest import correct_api, hold_api, rerate_api
from app.ingest.foreign import (
    cloudevents_api,
    langfuse_api,
    litellm_api,
    meters_api,
    stripe_api,
)
from app.ingest.foreign.cloudevents import CloudEvents
from app.ingest.otlp import otlp_api
from app.limits import api as limits_api
from app.plans import api as plans_api
from app.pricing import api as pricing_api
from app.pricing import prices_api
from app.retention import api as retention_api
from app.retention import archives_api
from app.runtime import Runtime, build
from app.scrape import api as scrape_api
from app.settings import Settings
from app.summaries import api as summaries_api
from app.summaries import unpriced_api
from app.summaries import usage_api as user_usage_api
from app.usage import api as usage_api
from app.web import problems
from app.web.lean import Handler, LeanDoor
from app.web.logs import configure
from app.web.openapi import describe
from app.web.pages import problems_page

VERSION = "0.1.0"


def create_app(runtime: Runtime) -> FastAPI:
    """The FastAPI application over these parts; `serve` puts the lean door in front of it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runtime: Runtime = app.state.runtime
        gc.set_threshold(50_000, 20, 20)  # the default spends a third of the hot path collecting
        await runtime.start()
        if runtime.has_jobs:
            runtime.jobs.start()
        gc.collect()
        gc.freeze()
        yield
        await runtime.close()

    app = FastAPI(
        title="Tollgate",
        version=VERSION,
        summary="Usage metering, pricing and spend limits for AI APIs.",
        lifespan=lifespan,
    )
    problems.install(app)
    for part in (
        ingest_api,
        hold_api,
        rerate_api,
        correct_api,
        cloudevents_api,
        meters_api,
        litellm_api,
        langfuse_api,
        stripe_api,
        otlp_api,
        analytics_api,
        rebuild_api,
        metrics_api,
        costs_api,
        query_api,
        drift_api,
        exports_api,
        alerts_api,
        limit_api,
        rule_api,
        webhook_api,
        limits_api,
        summaries_api,
        unpriced_api,
        user_usage_api,
        usage_api,
        pricing_api,
        plans_api,
        keys_api,
        changes_api,
        prices_api,
        archives_api,
        retention_api,
        scrape_api,
    ):
        app.include_router(part.router)
    app.router.routes.append(Dashboard(app.state))

    @app.get("/healthz", tags=["operations"])
    async def healthz() -> dict[str, str]:
        """The process is alive; says nothing about the database."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operations"])
    async def readyz(request: Request) -> dict[str, str]:
        """The database answers, its schema is this version's, and there are prices."""
        runtime: Runtime = request.app.state.runtime  # FastAPI keeps this function for ever
        await runtime.db.read(status_of_schema)
        if not runtime.house.prices.are_known:
            await runtime.db.glance(runtime.feed.catch_up)
        if not runtime.house.prices.are_known:
            raise Unavailable("there is no price list in the database; run `tollgate migrate`")
        return {"status": "ready"}

    @app.get("/docs/problems", response_class=HTMLResponse, tags=["operations"])
    async def problems_explained() -> str:
        """What each problem document's `type` means."""
        return problems_page()

    app.openapi = describe(app)  # type: ignore[method-assign]
    attach(app, runtime)
    return app


def attach(app: FastAPI, runtime: Runtime) -> None:
    """Have the application answer from these parts from now on."""
    app.state.runtime = runtime
    app.state.db, app.state.clock = runtime.db, runtime.clock
    app.state.feed, app.state.keys = runtime.feed, runtime.keys
    app.state.agreements, app.state.rules = runtime.house.agreements, runtime.house.rules
    app.state.prices, app.state.check = runtime.house.prices, runtime.check
    app.state.events, app.state.house = runtime.events, runtime.house
    app.state.holds, app.state.settle = runtime.holds, runtime.settle
    app.state.langfuse = runtime.langfuse
    app.state.foreign, app.state.otlp = runtime.foreign, runtime.otlp
    app.state.cloudevents = CloudEvents(
        runtime.foreign.identity, runtime.foreign.trust, runtime.settings.foreign_cloudevents
    )
    app.state.guard, app.state.sender = runtime.guard, runtime.sender
    app.state.store, app.state.wrap = runtime.store, runtime.wrap
    app.state.figures, app.state.scrape = runtime.figures, runtime.scrape
    runtime.figures.build.set(1, VERSION, runtime.db.dialect)
    app.state.wrapped_log, app.state.listed = runtime.wrapped_log, runtime.listed
    app.state.tries = Tries()


def create_asgi(runtime: Runtime, app: FastAPI | None = None) -> Any:
    """The application as it is served, the lean door first; a given `app` is used again."""
    if app is None:
        app = create_app(runtime)
    else:
        attach(app, runtime)
    routes: dict[tuple[str, str], Handler] = {
        ("POST", "/v1/events"): runtime.events,
        ("POST", "/v1/limits/check"): runtime.check,
        ("POST", "/v1/holds"): runtime.holds,
        ("POST", "/v1/holds/{hold_id}/settle"): runtime.settle,
    }
    return LeanDoor(app, routes, runtime.figures)


def serve() -> Any:
    """For uvicorn's workers: build from the environment."""
    settings = Settings()  # type: ignore[call-arg]
    configure(settings.log_level, settings.log_format)
    return create_asgi(build(settings))
