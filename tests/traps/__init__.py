"""The traps around stale or aliased replay, each equal to eager bit for bit and each with its counts."""
