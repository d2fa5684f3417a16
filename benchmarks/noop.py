"""The baseline: FastAPI and Pydantic with nothing behind them. It records nothing at all."""

from datetime import datetime

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI(title="no-op", openapi_url=None)


class Usage(BaseModel):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_reasoning_tokens: int = 0


class Event(BaseModel):
    id: str
    user_id: str
    timestamp: datetime
    provider: str
    model: str
    usage: Usage
    endpoint: str | None = None
    status_code: int = 200
    latency_ms: int | None = None


class Question(BaseModel):
    user_id: str
    provider: str
    model: str


@app.post("/v1/events", status_code=201, response_model=None)
async def post_event(event: Event) -> dict[str, str]:
    return {"id": event.id, "status": "ignored"}


@app.post("/v1/limits/check", response_model=None)
async def post_check(question: Question) -> dict[str, bool]:
    return {"allowed": True}


class Reservation(Question):
    id: str
    usage: Usage
    ttl_s: int


@app.post("/v1/holds", status_code=201, response_model=None)
async def post_hold(reservation: Reservation) -> dict[str, str]:
    return {"id": reservation.id, "status": "ignored"}


@app.get("/readyz", response_model=None)
async def ready() -> dict[str, bool]:
    return {"ready": True}
