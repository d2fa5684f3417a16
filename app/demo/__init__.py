"""A tour of the real service: recorded usage goes in over HTTP, and what it answers is shown."""

from app.demo.tour import run

__all__ = ["run"]
