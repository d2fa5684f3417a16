"""What the API answers about usage and its proof."""

from fastapi import APIRouter

router = APIRouter()
