"""Endpoints for limits."""

from fastapi import APIRouter

router = APIRouter()
