"""Random programs, run by every executor."""
