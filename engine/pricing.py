"""From rows of plain facts to rows of decided prices: pack, run the kernel, unpack, clamp again.

The one door between the shard's tables and the jitted kernel. Rows are padded to a fixed ladder
of sizes, so that nothing compiles after :func:`warm`; a padded row is unpublishable and dropped.

Units. Money is int32 in minor units of the listing's currency. ``price_minor`` 0 means that
nothing is decided: the price in force stays, and the reasons tell why.
"""

import numpy as np

from engine.policy import ENDINGS_MAX

PRICING_INPUT_DTYPE = np.dtype(
    [
        ("cost_minor", "<i4"),  # -1: unknown
        ("in_force_minor", "<i4"),  # 0: none
        ("status_quo_minor", "<i4"),  # price found at import, 0: none
        ("status_quo_cost_minor", "<i4"),  # the cost then, -1: unknown
        ("rrp_minor", "<i4"),  # 0: none
        ("map_minor", "<i4"),  # 0: none
        ("floor_minor", "<i4"),  # engine.floors.floor_minor: margin and explicit floor; 0: none
        ("ceiling_minor", "<i4"),  # 0: none
        ("rival_minor", "<i4"),  # reference rival, landed; 0: none
        ("rivals", "<u2"),
        ("stock", "<i4"),  # -1: unknown
        ("changes_last_hour", "<i4"),
        ("kvi", "u1"),
        ("vat", "<f8"),
        ("commission", "<f8"),
        ("fixed_fee_minor", "<i4"),
        ("minimum_fee_minor", "<i4"),
        # from the resolved policy, named as in POLICY_DTYPE
        ("max_discount_bp", "<i4"),
        ("step_max_bp", "<i4"),
        ("changes_per_hour_max", "<i4"),
        ("kvi_rival_ratio_bp", "<i4"),
        ("endings", "<i4", (ENDINGS_MAX,)),
        ("prior_elasticity", "<f4"),
        ("prior_elasticity_sd", "<f4"),
        ("status_quo_sigma", "<f4"),
    ]
)
"""What one listing is priced from."""

PRICING_POLICY_FIELDS = (
    "ceiling_minor",
    "max_discount_bp",
    "step_max_bp",
    "changes_per_hour_max",
    "kvi_rival_ratio_bp",
    "endings",
    "prior_elasticity",
    "prior_elasticity_sd",
    "status_quo_sigma",
)
"""Columns that are copied from ``POLICY_DTYPE`` as they are, under the same name."""

PRICED_DTYPE = np.dtype(
    [
        ("price_minor", "<i4"),  # 0: nothing decided, the price in force stays
        ("target_minor", "<i4"),  # the model's optimum before any rule; 0: invalid
        ("floor_minor", "<i4"),  # bounds after all rules but the ending
        ("ceiling_minor", "<i4"),
        ("reasons", "<u4"),  # kernels.reasons
        ("binding", "u1"),  # index in kernels.reasons.RULES, 255: none
        ("without_minor", "<i4"),  # the price if the binding rule were absent; 0: none
        ("elasticity", "<f4"),
        ("elasticity_sd", "<f4"),
        ("confidence", "<f4"),
        ("profit_change", "<f4"),  # expected, minor units per unit of today's demand
        ("infeasible", "u1"),
        ("unpublishable", "u1"),
    ]
)
"""What :func:`price` decides for one listing."""
