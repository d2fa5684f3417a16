"""Metering for AI calls: take an event, price it, log it once, sum it, limit it, warn about it."""
