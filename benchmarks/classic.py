"""The usual way to meter: FastAPI, an ORM and one transaction per event.

Each event reads its model's price, its user's plan and its user's summary, changes the summary in
Python, adds a log row, looks for thresholds passed and commits. The pools are SQLAlchemy's own; on
SQLite a transaction takes the write lock at its start, because one that reads first and locks later
fails as soon as two overlap.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

from fastapi import FastAPI
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Engine,
    Index,
    Select,
    create_engine,
    event,
    select,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.bodies import MODELS, USERS, user
from benchmarks.noop import Event

URL_VARIABLE = "CLASSIC_DATABASE_URL"
PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 16000",
)
THRESHOLDS = (80, 90, 100)


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {int: BigInteger, datetime: DateTime(timezone=True)}


class Price(Base):
    __tablename__ = "prices"

    provider: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    input_nanos: Mapped[int]
    output_nanos: Mapped[int]


class Subscription(Base):
    __tablename__ = "subscriptions"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    plan: Mapped[str]
    limit_nanos: Mapped[int]


class Summary(Base):
    __tablename__ = "summaries"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    period: Mapped[str] = mapped_column(primary_key=True)
    calls: Mapped[int] = mapped_column(default=0)
    errors: Mapped[int] = mapped_column(default=0)
    input_tokens: Mapped[int] = mapped_column(default=0)
    output_tokens: Mapped[int] = mapped_column(default=0)
    cost_nanos: Mapped[int] = mapped_column(default=0)
    by_model: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    updated_at: Mapped[datetime]


class LogRow(Base):
    __tablename__ = "log_rows"
    __table_args__ = (Index("log_rows_by_user", "user_id", "happened_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    happened_at: Mapped[datetime]
    provider: Mapped[str]
    model: Mapped[str]
    endpoint: Mapped[str | None]
    status_code: Mapped[int]
    latency_ms: Mapped[int | None]
    usage: Mapped[dict[str, Any]] = mapped_column(JSON)
    cost_nanos: Mapped[int]


class Alert(Base):
    __tablename__ = "alerts"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    period: Mapped[str] = mapped_column(primary_key=True)
    threshold: Mapped[int] = mapped_column(primary_key=True)


def new_summary(call: Event, period: str) -> Summary:
    return Summary(
        user_id=call.user_id,
        period=period,
        calls=0,
        errors=0,
        input_tokens=0,
        output_tokens=0,
        cost_nanos=0,
        by_model={},
        updated_at=datetime.now(UTC),
    )


def setup() -> list[Price | Subscription]:
    """What the events will look up: a price for each model, a wide limit for each user."""
    return [
        *(
            Price(provider=model.provider, model=model.name, input_nanos=150, output_nanos=600)
            for model in MODELS
        ),
        *(
            Subscription(user_id=user(number), plan="pro", limit_nanos=10**18)
            for number in range(USERS)
        ),
    ]


def cost(call: Event, price: Price | None) -> int:
    if price is None:
        return 0
    usage = call.usage
    return usage.input_tokens * price.input_nanos + usage.output_tokens * price.output_nanos


def add_call(summary: Summary, call: Event, cost_nanos: int) -> None:
    """Change the summary in Python, the breakdown by model included."""
    summary.calls += 1
    summary.errors += call.status_code >= 400
    summary.input_tokens += call.usage.input_tokens
    summary.output_tokens += call.usage.output_tokens
    summary.cost_nanos += cost_nanos
    by_model = dict(summary.by_model)
    name = f"{call.provider}/{call.model}"
    known = by_model.get(name, {"calls": 0, "cost_nanos": 0})
    by_model[name] = {
        "calls": known["calls"] + 1,
        "cost_nanos": known["cost_nanos"] + cost_nanos,
    }
    summary.by_model = by_model
    summary.updated_at = datetime.now(UTC)


def log_row(call: Event, cost_nanos: int) -> LogRow:
    return LogRow(
        id=call.id,
        user_id=call.user_id,
        happened_at=call.timestamp,
        provider=call.provider,
        model=call.model,
        endpoint=call.endpoint,
        status_code=call.status_code,
        latency_ms=call.latency_ms,
        usage=call.usage.model_dump(exclude_defaults=True),
        cost_nanos=cost_nanos,
    )


def passed(summary: Summary, subscription: Subscription | None) -> list[Alert]:
    """The alerts due at the summary's present cost."""
    if subscription is None:
        return []
    percent = summary.cost_nanos * 100 // subscription.limit_nanos
    return [
        Alert(user_id=summary.user_id, period=summary.period, threshold=threshold)
        for threshold in THRESHOLDS
        if percent >= threshold
    ]


def summary_of(user_id: str, period: str) -> Select[Summary]:
    return select(Summary).where(Summary.user_id == user_id, Summary.period == period)


def period_of(call: Event) -> str:
    return f"{call.timestamp:%Y-%m}"


def sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, pool_timeout=60, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in PRAGMAS:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def on_sqlite(url: str) -> FastAPI:
    engine = sqlite_engine(url)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add_all(setup())
    app = FastAPI(openapi_url=None)

    @app.post("/v1/events", status_code=201, response_model=None)
    def post_event(call: Event) -> dict[str, str]:
        with Session(engine) as session, session.begin():
            price = session.get(Price, (call.provider, call.model))
            subscription = session.get(Subscription, call.user_id)
            period = period_of(call)
            summary = session.scalars(summary_of(call.user_id, period)).one_or_none()
            if summary is None:
                summary = new_summary(call, period)
                session.add(summary)
            cost_nanos = cost(call, price)
            add_call(summary, call, cost_nanos)
            session.add(log_row(call, cost_nanos))
            for alert in passed(summary, subscription):
                session.merge(alert)
        return {"id": call.id, "status": "recorded"}

    return app


def on_postgres(url: str) -> FastAPI:
    engine = create_async_engine(url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session, session.begin():
            session.add_all(setup())
        yield
        await engine.dispose()

    app = FastAPI(openapi_url=None, lifespan=lifespan)

    async def record(call: Event) -> None:
        async with AsyncSession(engine) as session, session.begin():
            price = await session.get(Price, (call.provider, call.model))
            subscription = await session.get(Subscription, call.user_id)
            period = period_of(call)
            summary = (await session.scalars(summary_of(call.user_id, period))).one_or_none()
            if summary is None:
                summary = new_summary(call, period)
                session.add(summary)
            cost_nanos = cost(call, price)
            add_call(summary, call, cost_nanos)
            session.add(log_row(call, cost_nanos))
            for alert in passed(summary, subscription):
                await session.merge(alert)

    @app.post("/v1/events", status_code=201, response_model=None)
    async def post_event(call: Event) -> dict[str, str]:
        try:
            await record(call)
        except IntegrityError:  # two first calls of one user raced to make its summary
            await record(call)
        return {"id": call.id, "status": "recorded"}

    return app


def create_app() -> FastAPI:
    """For `uvicorn --factory`; the database is named by the environment."""
    url = os.environ[URL_VARIABLE]
    app = on_sqlite(url) if url.startswith("sqlite") else on_postgres(url)

    @app.get("/readyz", response_model=None)
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    return app
