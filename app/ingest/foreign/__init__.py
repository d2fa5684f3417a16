"""Usage as other programs tell it: their formats in, our events out, through the one intake."""
