"""What is counted: demand, the best price, rules, the fused jitted ``reprice``. Pure arrays.

``kernels.limits`` and ``kernels.reasons`` import nothing, so that whoever needs only names and
numbers pays for no jax.
"""
