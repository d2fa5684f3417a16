"""Pages for people: where the money goes, and what may be done about it."""
