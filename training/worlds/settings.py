"""Which worlds the exam has: the scenarios of the protocol, and others that nobody tuned for.

The perturbed worlds differ in the level and law of elasticities, in volume, dispersion, number and
bias of categories, in how wrong managers are, in rules of thumb for costs, in the form of demand,
and in several of these at once. None is used to choose a hyper-parameter.
"""

from msgspec import Struct
from msgspec.structs import replace

HISTORY_DAYS = 60


class Setting(Struct, frozen=True, kw_only=True):
    """What kind of market it is; the defaults are scenario S1."""

    groups: int = 20
    elasticity: float = -2.6
    group_sd: float = 0.6
    listing_sd: float = 0.7
    brands: int = 0  # of a category, 0: none
    brand_sd: float = 0.0  # of a category's brands, beside what is a listing's own
    brands_told: bool = True  # to whoever prices
    law: str = "normal"  # normal, lognormal, uniform
    steepest: float = -6.0
    form: str = "constant"  # constant, exponential, logit; mixed: by group, the first two in turn
    curvature: float = 0.0  # kappa: log demand falls by kappa x^2 as well
    gain: float = 1.0  # slope below the price that customers expect, as a share of the elasticity
    loss: float = 1.0  # and above it; a price that stays is expected, and only elasticity counts
    expects_days: float = 0.0  # how slowly the expected price follows; 0: it stays today's
    charm: float = 0.0  # theta: the share of the cents that is not felt
    volume_median: float = 3.0
    volume_sd: float = 1.2
    dispersion: float = 5.0  # k of the negative binomial, 0: Poisson
    season: float = 0.15
    shock_memory: float = 0.9
    shock_sd: float = 0.12  # of a day's innovation
    drift_sd: float = 0.0  # of elasticity, a day
    manager_sd: float = 0.15
    bias: float = 0.0  # of all managers, in log price
    bias_sd: float = 0.0  # of a category's managers
    keystone_share: float = 0.0  # of listings whose cost is a fixed share of the price
    costs_clipped: bool = True  # today's price earns at least the least margin
    history_sd: float = 0.08  # of a week's price in history, in logs
    endogeneity: float = 0.0  # how far managers follow demand
    rival_pull: float = 0.3  # gamma
    rival_follows: float = 0.0  # beta: how much of our cuts he matches
    stock_days: float = 0.0  # 0: never out of stock
    delivery_days: float = 0.0  # mean between deliveries of a fixed quantity, 0: there are none
    delivery_scatter: float = 0.0  # intervals are uniform within this share of their mean
    delivery_share: float = 0.7  # what one brings, of what today's price would sell until the next
    black_friday: bool = False
    poisoned_share: float = 0.0


BASE = Setting()

SCENARIOS: dict[str, Setting] = {
    "S1": BASE,
    "S2": replace(BASE, rival_pull=0.6, rival_follows=0.7),
    "S3": replace(BASE, endogeneity=0.35, history_sd=0.05),
    "S4": replace(BASE, drift_sd=0.025),
    "S5": replace(BASE, curvature=2.0),
    "S6": replace(BASE, manager_sd=0.3),
    "S7": replace(BASE, stock_days=14.0),
    "S8": replace(BASE, charm=0.2),
    "S9": replace(BASE, black_friday=True),
    "S10": replace(BASE, rival_pull=0.6, poisoned_share=0.02),
}
"""The protocol's scenarios."""

PERTURBED: dict[str, Setting] = {
    "flat": replace(BASE, elasticity=-1.9, group_sd=0.3),
    "steep": replace(BASE, elasticity=-3.6),
    "lognormal": replace(BASE, law="lognormal"),
    "uniform": replace(BASE, law="uniform"),
    "small": replace(BASE, volume_median=1.0),
    "large": replace(BASE, volume_median=15.0, volume_sd=0.8),
    "noisy": replace(BASE, dispersion=1.5, shock_sd=0.2),
    "few_groups": replace(BASE, groups=4),
    "many_groups": replace(BASE, groups=60),
    "biased": replace(BASE, bias=0.08, bias_sd=0.1),
    "dear": replace(BASE, bias=0.2, manager_sd=0.1),
    "cheap": replace(BASE, bias=-0.2, manager_sd=0.1),
    "thin_margins": replace(BASE, elasticity=-5.0, steepest=-9.0),
    "thin_margins_dear": replace(BASE, elasticity=-5.0, steepest=-9.0, bias=0.2, manager_sd=0.1),
    "keystone": replace(BASE, keystone_share=1.0),
    "half_keystone": replace(BASE, keystone_share=0.5),
    "sloppy": replace(BASE, manager_sd=0.22),
    "sharp": replace(BASE, manager_sd=0.08),
    "unclipped": replace(BASE, manager_sd=0.3, costs_clipped=False),
    "quiet_history": replace(BASE, history_sd=0.01),
    "exponential": replace(BASE, form="exponential"),
    "logit": replace(BASE, form="logit"),
    "mixed_forms": replace(BASE, form="mixed"),
    # Slopes of -2 below and -5 above the expected price (Hardie, Johnson, Fader 1993).
    "reference_kink": replace(BASE, elasticity=-3.5, gain=4 / 7, loss=10 / 7),
    "reference_adaptive": replace(
        BASE, elasticity=-3.5, gain=4 / 7, loss=10 / 7, expects_days=30.0
    ),
    "brands": replace(BASE, brands=6, brand_sd=0.6, listing_sd=0.35),
    "brands_untold": replace(BASE, brands=6, brand_sd=0.6, listing_sd=0.35, brands_told=False),
    "brands_alike": replace(BASE, brands=6),
    "endogenous_biased": replace(BASE, endogeneity=0.35, bias=0.06, bias_sd=0.1),
    "endogenous_lognormal": replace(BASE, endogeneity=0.35, law="lognormal", elasticity=-3.0),
    "scarce_weekly": replace(BASE, delivery_days=7.0),
    "scarce_irregular": replace(BASE, delivery_days=21.0, delivery_scatter=0.33),
    "scarce_at_random": replace(BASE, delivery_days=14.0, delivery_scatter=1.0),
    "just_enough_weekly": replace(BASE, delivery_days=7.0, delivery_share=1.1),
    "all_at_once": replace(
        BASE,
        endogeneity=0.3,
        law="lognormal",
        elasticity=-3.0,
        volume_median=2.0,
        dispersion=2.5,
        groups=12,
        bias_sd=0.08,
        manager_sd=0.25,
        drift_sd=0.015,
        rival_pull=0.5,
        rival_follows=0.4,
        curvature=0.7,
    ),
}
"""Worlds of our own, each away from S1 in what its name says."""
