"""Properties try the same cases every time, and no machine is too slow for them."""

from hypothesis import settings

settings.register_profile("tollgate", derandomize=True, deadline=None, database=None)
settings.load_profile("tollgate")
