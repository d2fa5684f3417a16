"""Answers about usage: a user's totals, their history, and the proof that all of it agrees."""
