"""The learning model: an elasticity a listing, learnt in the stream from the engine's own prices.

``update`` is a day's Kalman step (``kernels.whitening``), ``init`` the table over elasticities of a
retailer (``kernels.hierarchy``), ``propose`` the price of greatest expected profit and the dither
around it (``kernels.choice``). ``engine.learning`` calls them when days close, never a delta at a
time; ``docs/decisions/0040`` tells why.
"""

from kernels.choice import best_log, dither_size
from kernels.hierarchy import fit, posterior
from kernels.whitening import learn

VERSION = "streamed-elasticity-1"

init, update, propose = fit, learn, best_log

__all__ = ["VERSION", "best_log", "dither_size", "fit", "init", "learn", "posterior", "propose"]
