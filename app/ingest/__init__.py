"""The river: accept, price, log, sum, limit, warn."""
