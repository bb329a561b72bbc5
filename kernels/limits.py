"""Numbers that bound an array's cell. Imports nothing, so whoever needs these pays for no jax."""

PRICE_MINOR_MAX = 2**30
"""Largest price a row may hold, in minor units. Half of int32, so a difference cannot overflow."""

ROWS_PER_DECISION_MAX = 4096
"""Most rows one microbatch reprices and one decision record holds."""

DUE_ROWS_MAX = 512
"""Most rows one microbatch takes because a timer fell due."""

FEATURES_SLICE_MAX = 100
"""Listings whose features are told at once: between two such slices an owner decides prices."""
