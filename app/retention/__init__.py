"""Logs that wrap: old rows go to archives, what they add up to stays, and nothing is lost."""
