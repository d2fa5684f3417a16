"""`GET /metrics`: everything counted and everything stored, as Prometheus reads it."""
