"""Programs that others wrote, run against the real service; `python -m clients` is the front."""
