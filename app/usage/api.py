"""What the API answers about one user's events."""

from fastapi import APIRouter

router = APIRouter()
