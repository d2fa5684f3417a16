"""OpenTelemetry in: traces and logs that tell of model calls, each call counted once."""
