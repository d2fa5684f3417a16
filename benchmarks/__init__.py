"""What the speed claims rest on: every figure is a ratio to a baseline measured in the same run."""
