"""Running totals derived from the log, and the proof that they agree."""
