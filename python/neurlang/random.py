"""The random stream: Philox, counted; the same numbers eager and traced, on any number of threads."""

from ._tensor import get_rng_state, manual_seed, set_rng_state

__all__ = ["get_rng_state", "manual_seed", "set_rng_state"]
