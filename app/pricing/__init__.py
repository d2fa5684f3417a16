"""What a call costs: rates as integers, names as people spell them, one exact rounding."""
