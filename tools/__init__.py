"""Scripts for whoever works on Tollgate; nothing here runs in the service."""
