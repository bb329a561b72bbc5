"""Every figure that was chosen, and may be chosen otherwise: what is learnt and asked hangs on it.

One file, so that whoever wonders why a price is what it is, or searches for better figures, finds
all of them with the reason beside each. They are grouped by what they are about, and imported by
name where they are used. Where a reason says that a figure is round, or that no search is recorded,
nothing better is known of it. None was chosen on seeds that the exam reports (``docs/exam.md``).

Not here: names, formats, limits, sizes that change speed alone, what follows from these figures,
numbers that stand in one formula and nowhere else, and what a retailer sets in his policy
(``engine.policy``).

To change one may decide otherwise what was decided before: see ``engine.shard.ENGINE_VERSION``.
Logs are natural ones. Imports no jax, so that whoever reads a checkpoint pays for none.
"""

import numpy as np

# ----- elasticities: the grid, and what is thought of categories before anything is sold ----------

ELASTICITIES = np.concatenate(
    [
        -np.array([0.5, 0.57, 0.65, 0.74, 0.84, 0.95]),
        -np.exp(np.linspace(np.log(1.08), np.log(8.5), 44)),
        [-9.3, -10.2, -11.2],
    ]
)
"""The grid. Of the first six no price is best, and the dearest that is allowed earns most. Steeper
than its end, prices lie at their cost and a tenth whatever the elasticity."""

FLOOR_ELASTICITY = -1.25
"""The flattest elasticity that a retailer's category has in the family with a floor."""

MEANS = -np.array(
    [0.6, 0.85, 1.15, 1.33, 1.5, 1.8, 2.1, 2.35, 2.6, 2.85, 3.1, 3.4, 3.8, 4.3, 5.0, 6.0, 7.2]
)
"""Near -1 best prices lie far apart: without -1.33 a shop at four times its costs, rightly, was
thought to be at a bias of a third, and cut its prices by as much."""

MEAN, MEAN_SD = -2.6, 0.8
"""Of categories' means: 1,851 published estimates average -2.62."""

RETAILER_OFFS = np.array([1.2, 0.6, 0.0, -0.6, -1.2, -1.8, -2.4, -3.0, -3.6])
"""How far all categories of one retailer may lie off what is known of categories in general, who
says nothing of theirs: whoever sells what everybody compares meets steep demand in all of them."""

RETAILER_OFF_SD = 0.3
"""Mostly hardly, for the published estimates are of all trades. Categories lie around it by what is
left of ``MEAN_SD``."""

RETAILER_OFF_LOG = -7.0
"""No offset is thought less likely than this, in nats: once a retailer, where ``TAIL_LOG`` is once
a category. With -5 a single category whose markups are alike was believed steep."""

TAIL_LOG = -8.0
"""No mean on the grid is thought less likely than this, in nats: enough sales are believed. Who is
surer of his mean than others asks for as much more of them."""

FLAT_LOG = -1.0
"""And beside it, how unlikely inelastic categories are: who sells such goods mostly has raised
their prices already, until demand was elastic."""

FLAT_SPREAD_MAX = 0.45
"""Of inelastic categories, as a share of their mean."""

SHIFT_STEP, SCALE_STEPS = 0.02, 2
"""How finely a stated mean, and its sd in steps a doubling, move the grid. Coarse, because
categories with the same factors are worked out together."""

STATED_STEEPEST = -8.0
"""Words steeper than this count as this. No reason for the figure is recorded."""

# ----- how a catalogue came about: how far its prices are trusted, how alike its listings are -----

BIASES = np.array([-0.35, -0.26, -0.18, -0.12, -0.06, 0.0, 0.06, 0.12, 0.18, 0.26, 0.35])
"""By how much, in log price, a category's managers may be off together; finer near nothing. No
search for these figures is recorded."""

BIAS_SDS = (0.03, 0.12)
"""How large such biases mostly are: one of these is found. No search for them is recorded."""

UNKNOWING_LOG, UNKNOWING_STATED_LOG = -7.0, -12.0
"""How likely it is, in nats, that a category's prices came about without regard to demand; the
latter where the retailer says how good his prices are."""

SIGMAS = (0.025, 0.05, 0.08, 0.12, 0.16, 0.22, 0.3, 0.45)
"""How far single managers are off, in log price: one is found. See ``SPREADS``."""

SPREADS = (0.15, 0.3, 0.5, 0.7, 0.95, 1.25)
"""Of elasticities in a category: one is found. Like ``SIGMAS`` they begin small enough for a
catalogue whose markups are nearly alike. Where no configuration scatters so little, steep
elasticities explain it instead, because they move markups least: 60 listings at half above cost,
five percent apart, were thought to have -3.4 to -4.1 and not -3."""

ELASTICITY_SPREAD, SPREAD_SD_LOG = 0.7, 0.9
"""What is thought of the spread itself: without it a dozen listings that sold little were thought
to be alike."""

SPREAD_LEAST = 0.02
"""However sure a retailer says he is, his listings are no more alike than this. No search for it is
recorded."""

BIAS_MASS_MIN = 1e-5
"""A bias that no category believes in more than this is not worked out: a third of them are left
after some weeks."""

UNKNOWING_MASS_MIN = 0.01
"""As much for prices that came about without regard to demand: nearly nobody's did, and a hundredth
of a belief moves no price."""

DENSITY_LEAST = 1e-4
"""Least likelihood of a markup: a wrong cost says little."""

BOUND_LEAST = 1e-8
"""Least likelihood of a bound: float32 has nothing left of it far away, and sales must count."""

TINY = 1e-30
"""Least evidence of a row: beyond it, two beliefs exclude each other."""

UNKNOWING_SD_MIN = 0.05
"""Least scatter that markups without regard to demand are taken to have: without one, markups that
are alike would be as likely as you please. No search for the figure is recorded."""

# ----- the first model, which does not learn ------------------------------------------------------

IMPLIED_MIN, IMPLIED_MAX = -10.0, -1.25
"""What a status quo may say at most: a margin beyond it is a wrong cost rather than a taste."""

IMPLIED_SD_MIN = 0.1
"""However well a margin fits, one price is one observation."""

# ----- fits of a retailer's table: how many rows, how often, and whose word counts ----------------

ROWS_A_CATEGORY, ROWS_FITTED = 120, 2_400
"""So many rows at most are fitted: more would not tell a retailer's categories apart better."""

POOLED_ROWS = 8_192
"""So many rows at most are asked by a fit how much demand bends and how far rivals pull: one of its
passes over a hundred thousand took a second or two of a processor, in which a shard decides
nothing, and what all rows share these tell."""

CONFIGS, CONFIGS_MOST, CONFIG_ROWS = 3, 24, 6_000
"""How many of the likeliest configurations are averaged over: more where few listings leave it
open which of them holds, and a belief in one would be too sure."""

FIT_DAYS, FIT_DAYS_LATER = (7, 7, 7, 7), 28
"""Days from one fit to the next: weekly for four weeks, then every four."""

ALARM_SD = 4.0
"""Beyond it history is thought to have followed demand, and tells nothing of prices."""

CATEGORY_ALARM_SD = 3.0
"""Beyond it a category's history and our own prices contradict each other: by chance one category
in four hundred would. Nothing follows from it but that a person is told."""

TOLD_LEAST = 0.01
"""Sums of squared price innovations below this tell nothing of an elasticity."""

# ----- brands and tags: what they say of elasticities inside a category ---------------------------

ATTRIBUTE_SDS = (0.0, 0.08, 0.16, 0.3)
"""How far one brand, or one tag, moves its listings' elasticities, as a share of their category's
mean: of -2.6 nothing, a fifth, four tenths, or eight tenths, which is all of what lies between a
category's listings in ``ELASTICITY_SPREAD``. They are weighed by what the sales say, and nothing is
one of them, so names that tell nothing move nothing. No search for the steps is recorded."""

ATTRIBUTE_STEP, ATTRIBUTE_LOG_MAX = 0.08, 0.48
"""How finely, and how far at most, attributes move a listing's mean, in logs: rows of one step are
worked out together. Half a step is a tenth of an elasticity, which costs a thousandth of profit."""

ATTRIBUTE_LISTINGS_MIN, ATTRIBUTES_A_CATEGORY = 2, 24
"""An attribute of fewer fitted listings tells no other anything; and of a category so many count at
most, those of most listings. Round figures."""

ATTRIBUTE_PARTS = 4
"""A catalogue is foreseen in so many parts, each by the others, to see what attributes leave open.
A round figure."""

# ----- rules of thumb, and bounds that managers ran into, found in markups ------------------------

ALIKE_LOG, ALIKE_MIN, ALIKE_SHARE = 0.002, 5, 0.05
"""Markups this near to each other, so many of them in a category: a rule of thumb."""

NARROW_LOG, NARROW_REACH = 0.035, 0.12
"""Where half of a category's markups lie within the first of the middle one, those within the
second are one rule, applied by hand. Demand is nowhere so alike: who took it for that was so sure
of it that he never tried a price."""

RULE_SD_LOG, RULE_LOG_LEAST = 0.08, -4.0
"""How far the price of a rule of thumb lies from a category's best one."""

ROUNDED_STEPS = 2
"""So many steps rounding may carry a markup off: half a unit of a cost of 130."""

PILED_LOG, PILED_SHARE = 0.004, 0.01
"""Markups piled up at the lowest there is, across categories: a bound that managers ran into."""

PILED_MOST = 0.5
"""Where more of them are alike it is how all prices are made, and no bound: sixty listings at 1.6
of their cost were thought to have been worth less than that, and lost an eighth of their price."""

# ----- curvature, rivals' effect, and the form of demand ------------------------------------------

MOMENTS_KEPT = 0.97
"""What a day leaves of the sums from which a retailer's dispersion is found. No search for it is
recorded."""

CURVATURE_PRIOR, CURVATURE_PRIOR_SD = 0.5, 1.0
"""Prior of a retailer's pooled curvature. No search for it is recorded."""

RIVAL_PRIOR, RIVAL_PRIOR_SD = 0.2, 0.4
"""Prior of what a rival's price does to sales, pooled likewise. No search for it is recorded."""

FOLLOW_PRIOR = 0.5
"""Squared logs of cuts that no rival was seen to follow."""

TRIAL_CURVATURES = (0.0, 1.5, 3.0)
"""Curvatures under which each day is foreseen, beside exponential demand: evenly apart and from
nothing on, for a parabola goes through the three. No search for the step is recorded."""

CURVATURE_MAX = 4.0
"""No form bends more: so is the pooled curvature bounded."""

LEAD_NATS = 3.0
"""So many nats a form's forecasts must be ahead of those of the form in use. Where the latter is
right that happens once in twenty categories, however long one looks (Ville's inequality)."""

TRIAL_SLOPE_SD = 0.5
"""How far a category's slope under one form is off what its listings' beliefs say, at first."""

TRIAL_LOG_MAX = 1.0
"""Trials differ by no more than that in the logarithm of what they foresee of a day."""

KINK_SD = 0.4
"""How large a kink at the usual price is thought to be, as a share of the elasticity: 0.43 is what
slopes of -2 below and -5 above it are, as Hardie, Johnson and Fader (1993) found for juice."""

KINK_SHARE = 0.2
"""Of shops, in which customers are thought to hold prices against the usual one. A kink is priced
by once it is likelier than not: it must explain sales four times as well as none, which where there
is none can happen to one retailer in four at most, however long one looks (Ville's inequality)."""

KINK_BEND_SD = 1.0
"""A smooth bend that grows with the slope, beside a kink: 1 is that of exponential demand. Without
it one that saturates (logit) was taken for a kink, and cost .003 of the profit."""

KINK_MAX = 0.8
"""No kink is believed that leaves less than a fifth of the slope below the usual price."""

SLOPE_MEMORY_DAYS = 100.0
"""A category's slopes under a form forget by a factor of e in so many days: they are learnt beside
its listings' beliefs, which catch up with them."""

# ----- levels of sales, surprises, and how they are forgotten -------------------------------------

FACTOR_DAYS = 28.0
"""In so many days a shop's levels follow the factor that all of its listings share. Four weeks hold
four of each weekday, whose factors cancel."""

FACTOR_MAX = 0.25
"""What of a day's shared factor levels may follow: of a Black Friday, when five times as much is
sold, no more than of a good day."""

LEVEL_SD = 0.10
"""How far a level moves in a day, in logs. Shocks of 0.12 that last ten days look like this."""

SEASON_LEVEL_SD = 0.02
"""How far the level of a listing with a season's end moves in a day: its stock is cleared by what
all of its sales say, and not by the last two weeks'."""

SURPRISE_SD_MAX = 4.0
"""Surprises are clipped at so many standard deviations: a bulk order is no change of demand."""

SUMS_MEMORY_DAYS = 500.0
"""Sums forget by a factor of e in so many days, for elasticity drifts."""

WARM_DAYS = 14
"""For so many days a level is a running mean; only then it is filtered."""

FACTOR_SD, CATEGORY_SD = 0.5, 0.12
"""How far a whole retailer's day, and a category's beside it, are off what was foreseen."""

PSEUDO_UNITS = 5.0
"""Units added to both sides of a factor's ratio, so that few sales make no large factor."""

DISPERSION_STEP_MAX = 1.1
"""Most that the dispersion moves in a day: all of a retailer's listings share it, and a day's
invented sales of some would end the exploration of all."""

# ----- the price to ask, how far it moves, and how far it strays to learn -------------------------

PRICE_OFFSETS = np.linspace(-0.36, 0.36, 73)
"""Prices looked at around the anchor, in logs: one per cent apart."""

BEND_LEAST = 0.3
"""How little profit bends around its best price at least: a dither costs half of it times its
square. No search for it is recorded."""

STRAYS_LOG = 1e-4
"""A price that lies no further from its best one does not stray, as a receipt tells it: half a cent
of 50, which rounding undoes. No search for it is recorded."""

HORIZON_DAYS = 150.0
"""Within which a dither shall earn what it costs."""

HIDDEN_BIAS_SD = 0.15
"""How far off all of a category's prices may be, in logs, before any of them was moved. A tenth was
no cheaper where prices were right (decision 0094)."""

OTHERS_TESTED_SHARE = 0.25
"""Of the precision that other categories' moves told, what counts for a category: with none,
categories of a few listings stray for months. Of none and this one this was chosen, in small worlds
of seeds that the exam reports too (decision 0103)."""

MOVE_MAX_LOG = 0.13
"""Most that a learnt price moves from one decision to the next, dither included: below what the
breaker calls a large move."""

MOVE_MIN_LOG = 0.01
"""Smaller moves of the anchor are not worth a label."""

FLOOR_DISTANCE = 0.005
"""A learnt price keeps this far from its floor: a floor is a guardrail and no goal."""

ASKED_LOG = 0.02
"""So far from what was asked a price may be, by rounding and endings, and still be the engine's."""

COARSE_LOG = 0.04
"""Legal prices further apart than this are chosen between: rounding between nearer ones strays less
than ``ASKED_LOG``."""

LEFT_DIGIT_PART = 100.0
"""Of a price, what is read inattentively: what it has beyond its last multiple of this."""

SUBSIDY = 1e6
"""What makes an objective count units alone. In reference prices: float32 still tells what demand a
hundredth more brings, and no price."""

CATEGORY_SLOPE_MAX = -1.2
"""A category as a whole is not taken for less elastic than this: where all of it is dearer and
few leave it, no price would ever be dear enough."""

# ----- prices at which a listing is known to sell -------------------------------------------------

PROVEN_NEAR_LOG = 0.08
"""So far above the proven price a price is still as good as that: dithers stay within it."""

HOPED_UNITS, HOPED_DAYS = 4.0, 14.0
"""Nothing is said before so many units were hoped for, nor before so many days' worth of them."""

SELLS_SHARE, LOST_SHARE = 0.6, 0.35
"""Who sells so much of what was hoped for has proven a price; who sells less than that has lost."""

DOUBT, DEVIANCE = 0.15, 5.0
"""Variance of what a level does by itself within some months, in logs; and how far what came must
be off what was hoped for, as a deviance: with nothing sold it is 5 at some four units."""

BARRED_DAYS = 90
"""How long prices above the proven one are barred; then they are tried again, a step at a time."""

PROVEN_MEMORY_DAYS = 120.0
"""Counts forget by a factor of e in so many days."""

# ----- stock that must go by a date ---------------------------------------------------------------

OPTIMISM_SD, CUT_MIN_LOG = np.array([0.7, 1.4]), np.array([0.20, 0.10, 0.07])
"""With one cut left, two, or more (the last stands for all beyond). Found on other seeds of the
markdown world than those that the exam reports: .953 of its fluid bound with three cuts, where one
optimism of 1.5 and one least cut of .06 reach .945."""

LOOK_DAYS = 2
"""So often a listing is looked at: what a cut must be worth chooses its day."""

RECOUNT_SHARE = 0.1
"""A count further than this off what sales had left decides a season's price at once. What
shops lose and find between two counts is a few per cent; a delivery or a return is more."""

PRIOR_UNITS, PRIOR_DAYS = 0.5, 0.7
"""What a season is taken to have sold before its first day: little, for it shall weigh little."""

WATCHED_DAYS = 5
"""So many days a listing sells before its season moves its price: until then it has told nothing
of how fast it does."""

SEASON_SLOPE_MAX = -1.1
"""Flatter demand than this is not believed of a season: no price would ever clear it."""

# ----- stock that must last until the next delivery -----------------------------------------------

DELIVERY_SHARE = 0.5
"""A count that finds less than this share of a usual delivery more than sales had left is a return
or a miscount, and no delivery."""

DELIVERIES_KEPT = 12.0
"""What deliveries bring, and when, is a mean of so many: suppliers change their rhythm."""

EMPTY_SHARE, RAN_OUT_SHARE = 0.1, 0.25
"""A shelf with less than this share of what comes is as good as empty; where fewer deliveries than
the second share find it so, nothing is scarce. A price that makes stock just last leaves about half
of them empty, for demand scatters on both sides."""

RHYTHM_SCATTER = 0.25
"""Variance of intervals, in squares of their mean, from which on they have no rhythm. Those between
two and four weeks have .04; where a delivery comes on any day alike it is 1, and the time that has
passed tells nothing of the time to come."""

UNSURE_SHARE = 0.5
"""How many standard deviations before its mean a delivery is not yet to be expected."""

SCATTER_PRIOR, SHOPS_WORTH = 2.0, 3.0
"""Before a shop's deliveries tell, their intervals are taken for exponential, as certain as so many
of them make it; and what they tell of a listing weighs as much as so many intervals of its own."""

GAPS_LEAST, INTERVALS_LEAST = 0.0005, 5.0
"""By so much more, as a variance in shares of an interval, gaps must scatter than intervals do, and
so many intervals of a shop must have told of both."""

HALF_DAY = 0.5
"""Closes come once a day, so for how long a shelf was empty is known to half a day, whose square
is taken off a gap's variance: what only counting in days makes is no calendar."""

FALSE_STARTS = 3
"""While fewer deliveries are known, one of more than twice what they brought begins anew: those
were returns or late counts, and would let others pass for deliveries."""

LEVEL_LEAST = 0.01
"""Fewer units a day than this are not divided by."""

SHOPS_KEPT = 1000.0
"""So many of a shop's intervals are remembered."""

LAPSED_TIMES = 2.0
"""A delivery that has not come for so many of its usual intervals is no longer waited for."""

AHEAD_SHARE = 0.3
"""With less than this share of an interval ahead a price is one for what comes next: the few units
left say nothing, and the price lasts longer than they."""

# ----- the breaker, and what learning leaves of it ------------------------------------------------

EXPLAINED_SLACK_LOG = 0.05
"""How much further than its cause a move may go and still count as explained."""

RELEASE_SLACK = 0.05
"""How far from what the breaker held a released move may be."""

USUAL_GAIN = 0.2
"""How fast the usual number of changes a window follows."""

COSTS_TRUSTED_MS = 3_600_000
"""How long a resume lets large changes of cost pass."""

LARGE_MOVES_SHARE = 0.5
"""Of what the breaker lets pass within a window, what learning takes in a day."""

# ----- a position against a rival, and the brake on spirals ---------------------------------------

REST_LOG = 0.005
"""So near to its position a listing rests: a currency's rate trembles by less, and a rival who asks
a cent less each time moves nobody."""

REST_MINOR = 1.0
"""Minor units that are not worth a step of their own."""

WAR_WINDOW_SLOTS = 28 * 144
"""In slots of ten minutes. Cuts within four weeks count together; so long is a war remembered after
its brake."""

WAR_ROUNDS, WAR_FALL_LOG = 3, 0.008
"""So many cuts that we followed and that were answered are a war; the first apart, they must have
taken so much of the price, or else a currency's rate that trembles would make one."""

DEEP_ROUNDS, DEEP_FALL_LOG = 2, 0.08
"""Where cuts are deep, fewer are enough: three of ten percent would be a fall already."""

WAY = 3.0
"""A first cut so many times as deep as the second is no part of a war."""

TURNS, TURN = 4, 1.05
"""So many cuts by this factor that were taken back are an oscillation, and promotions are not."""

# ----- which rivals' prices are believed ----------------------------------------------------------

SPREAD_START = 0.08
"""Usual size of a log move that a rival is credited with before any was seen; also the least."""

SPREAD_GAIN = 0.25
"""How fast that usual size follows the moves that are seen. No search for it is recorded."""

SAME_LOG = 0.05
"""Two sources nearer than this say the same."""

REPEAT_LOG = 0.02
"""A source nearer than this to what it said repeats it; a slow slide must not pass for that."""

ABSURD_LOG = 2.302585
"""A factor of ten: no repetition makes such a price believed."""

REPEAT_MINUTES, REPEAT_SLOPE_MINUTES = 1, 10
"""So long after its first sighting a price that is repeated is believed, and so long where it moved
too fast: the further a price lies off, the longer that takes. Round figures."""

REPEAT_FAR_MINUTES, REPEAT_FAR_TIMES = 60, 3
"""A price outside the band must be seen so often, so long apart. Round figures."""

OUTLIER_OFFERS_MIN, OUTLIER_LOG_MIN = 4, 0.4
"""So many offers must be known before one of them can be too low: of fewer, nobody can tell who is
wrong. And it must lie so far below the middle one, however alike the others are; no search for the
latter is recorded."""

QUORUM_FEEDS = 3
"""From so many feeds on, one that lies can be outvoted."""

TENURE_DAYS = 7
"""On so many days an offer must have been believed before it bears out another."""

BORNE_OUT_LOG = 0.02
"""A price is borne out by another that asks no more than so much above it."""

MOORED_MS = 600_000
"""The leash is moored anew so often at most: in shorter times it would not move at all."""

LEASH_DAYS_MAX = 366.0
"""A leash that nobody moored is no longer than so many days make it. A round figure: a year."""

# ----- experiments --------------------------------------------------------------------------------

ALPHA, SAMPLE_RATIO_ALPHA = 0.05, 0.001
"""How often a verdict may be wrong, and an alarm about shares."""

TAU = 0.05
"""Lifts of this size are what mSPRT is quickest to see."""

UNITS_MIN, FREEDOM_MIN = 8, 3.0
"""Fewer units say nothing yet, whatever they show."""

BEFORE_DAYS = 7.0
"""So many days of an average listing are mixed into what a listing earned before."""

WEIGHT_MIN = 0.05
"""No listing weighs less than this share of an average one, however little it earned before. No
search for it is recorded."""

# ----- trained models: when one is believed, kept, and rolled back --------------------------------

ROLLBACK_DROP = 0.05
"""A model is rolled back when its mean error exceeds that without it by more than this."""

ROW_DAYS_MIN = 20
"""Listings times days that must have been foreseen before a model is judged."""

SURE_SD = 3.0
"""The difference of both errors must be so many standard deviations: ten bad guesses are chance."""

ERRORS_MEMORY_DAYS = 28.0
"""Errors are forgotten by a factor of e in so many days, so that a late decay is noticed."""

UNSOUND_MAX = 0.05
"""A model of which a larger share is no possible prediction is refused as a whole."""

PREDICTED_LEVEL_MAX, PREDICTED_SEASON_MAX = 16.0, 2.0
"""A prediction of which the size of either, in logs, is above these is none."""

PREDICTED_ELASTICITY_MIN, PREDICTED_ELASTICITY_MAX = -8.5, -1.02
"""Nor is one whose elasticity is outside of these."""

PREDICTED_SD_MIN, PREDICTED_SD_MAX = 0.02, 10.0
"""Nor one that is surer, or less sure, than that."""

# ----- training -----------------------------------------------------------------------------------

PRICE_LOOK_HOURS = (0, 6, 12, 18)
"""Hours at which a day's price is looked at; it is the mean of what is found."""

RECENT_DAYS = 28
"""So many days before a day say what its listing sells and costs usually: four whole weeks."""

KNOWN_DAYS_MIN = 7
"""A row needs so many days before it."""

TREE_ROUNDS = 80
"""Trees that say how a day differs. No search for their number is recorded."""

TREE_PARAMETERS = {
    "objective": "count:poisson",
    "tree_method": "hist",
    "max_depth": 4,
    "eta": 0.08,
    "min_child_weight": 20.0,
    "lambda": 5.0,
    "max_delta_step": 0.7,
    "subsample": 1.0,
    "nthread": 1,  # a second thread adds up in another order
}
"""Small trees over the logarithm of recent sales: they say how a day differs, not how a shop."""

HEAD_WIDTH, HEAD_EMBEDDING = 16, 4
"""Of the neural head's hidden layer, and of a category in it. No search for them is recorded."""

HEAD_STEPS, HEAD_BATCH_ROWS, HEAD_RATE = 500, 32_768, 0.02
"""Of Adam, whose rate falls to nothing along a cosine. No search for them is recorded."""

HEAD_USUAL, HEAD_USUAL_SD = 2.6, 0.8
"""Of elasticities' sizes, over categories (Bijmolt et al.)."""

HEAD_OFFSET_SD = 0.7
"""Of a listing's beside its like."""

HEAD_LEVEL_SD = 0.3
"""Of what the head corrects the trees by."""

HELD_DAYS = 14
"""The last days, on which a model that was fitted to those before is scored."""

TRAINING_ROWS_MIN = 500
"""From fewer listing-days no model is fitted. A round figure."""

FORGETTING_SD = 0.1
"""How far a level has moved since it was learnt, in logs: a model is never surer of it."""

HISTORY_SD = 0.25
"""Beside what the rows say: elasticities in prices that managers set may be off by this much."""

# ----- the backtest, and demand fitted on a table -------------------------------------------------

EXTRAPOLATED_MAX = 0.2
"""A larger share of proposals outside the observed prices, and the estimate has no support."""

BACKTEST_DRAWS = 200
"""Of each interval: elasticities and listings are drawn anew so often."""

FLATTEST = -0.05
"""No item, and no listing in a backtest, sells more because it is dearer."""

GAINS = (0.02, 0.05, 0.1, 0.2, 0.35)
"""How much of a surprise a level takes over; one is chosen a group."""

GROUP_ELASTICITY, GROUP_ELASTICITY_SD = -2.6, 1.2
"""Prior of a group's mean elasticity."""

COVARIATE_SD = 1.0
"""Prior standard deviation of a group's mean effect of a covariate, around nothing."""

SPREAD_SDS = (0.6, 0.3)
"""Of items' elasticities and of their covariates' effects in a group, before the data speak."""

SLOPE_ROUNDS = 12
"""Rounds of fitting means and spreads; more do not change the third decimal."""

SCATTER_ROWS, SCATTER_LEAST = 10.0, 1e-3
"""So many rows' worth an item is as noisy as its group, before its own surprises speak. In logs: in
a group variances lie orders of magnitude apart, though no further than this."""

HORIZON_ROWS = 100.0
"""So many rows' worth a horizon is missed as a wandering level would miss it, before a group's own
misses speak: they overlap, and few of them are no word."""

SALES_LOG_MAX = 40.0
"""Nothing sells more than e to this, whatever a level said: it keeps sums finite."""

SKEWS = (-1.0, 1.5)
"""Half variances by which a mean may lie above its median: a log-normal's lies one above, that of
what runs out of stock now and then less."""

RHYTHM_WEEKS, RHYTHM_RATIO = 4, 8.0
"""Weeks that a table needs to show a rhythm, and by how much weekdays must differ more than chance,
as a ratio of variances: with 6 degrees of freedom chance gives 8 once in a hundred thousand tables.
"""

GRAINS = 20.0
"""What is not sold in whole units sells so many grains a period on average, and half a grain is
added before logs are taken: a fortieth of the mean at most."""

SLOW_UNITS = 10.0
"""Below this mean a period, whole units are counted; from there on logs do as well."""

ANCHOR_UNITS = 0.5
"""So many units at the item's lasting rate stand behind every level: none falls to nothing."""

SLOW_DISPERSION, SLOW_DISPERSION_WEIGHT = 0.1, 5.0
"""Variance beyond Poisson's, as a share of the squared mean, before the data speak."""

SLOW_DISPERSION_MAX = 5.0
"""No more of it is believed, whatever the data say. A round figure."""

EXPONENT_MAX = 20.0
"""No price moves sales by more than e to this."""

COUNTED_MAX = 200.0
"""Above this mean a count's quantiles are a log-normal's."""

SLOW_PASSES = 6
"""Passes until slopes settle."""
