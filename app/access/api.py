"""Endpoints for API keys."""

from fastapi import APIRouter

router = APIRouter()
