"""The log: one immutable row per call."""
