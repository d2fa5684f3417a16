"""The service for tests that start it hundreds of times, one after another."""

from typing import Any

from fastapi import FastAPI

from app.main import create_app, create_asgi
from app.runtime import Runtime

_applications: list[FastAPI] = []


def served_alone(runtime: Runtime) -> Any:
    """The service over these parts; whatever was served so before answers from them too.

    One application is used again and again: making its routes takes half a second, and letting
    them go seconds of garbage collection.
    """
    if not _applications:
        _applications.append(create_app(runtime))
    return create_asgi(runtime, _applications[0])
