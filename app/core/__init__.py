"""Words every package shares: money, time, counters, identity, failure."""
