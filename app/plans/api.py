"""Endpoints for plans and subscriptions."""

from fastapi import APIRouter

router = APIRouter()
