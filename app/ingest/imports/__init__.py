"""Usage that others kept: read from their files and tables, and recorded like any other."""
