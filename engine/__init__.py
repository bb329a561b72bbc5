"""What a price means: deltas, listings, policies, the shard, quotes and receipts. Pure.

Only ``engine.shard`` and ``engine.pricing`` import ``kernels`` modules that import jax. A gateway
imports the types of this package and must not pay for jax.
"""
