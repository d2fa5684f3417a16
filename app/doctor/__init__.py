"""Whether an installation is fit to run, and what to do where it is not."""
