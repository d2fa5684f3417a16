"""Endpoints for prices and models."""

from fastapi import APIRouter

router = APIRouter()
