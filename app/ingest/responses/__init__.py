"""Providers' raw responses, read into the counters that they bill."""
