"""Endpoints for alerts."""

from fastapi import APIRouter

router = APIRouter()
