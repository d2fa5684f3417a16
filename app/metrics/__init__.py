"""What the service counts of itself, cheaply enough to count all of it."""
