"""Currencies, and what they are worth in each other to one retailer.

Rates are a retailer's own: what one retailer tells never moves another's price. A rate that is
missing or stale fails closed.
"""

from typing import Any

import numpy as np

from engine.deduplication import pairs_of
from engine.microbatch import currency_code, currency_name

CURRENCIES_MAX = 250
"""Most currencies one shard knows; a rival's offer names one in a byte."""

CURRENCIES_A_RETAILER_MAX = 40
"""Most currencies one retailer may name, so that none uses up what all share."""

NO_ROOM = -1
"""The number of a currency for which there is no room; 0 is the listing's own."""

NO_RATE_MS = -1
"""When a rate that is missing was observed."""


class Currencies:
    """Numbers for currencies (0: none), and each retailer's rates with their time."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {0: 0}  # currency_code -> number
        self._names: list[str] = [""]
        self._named: dict[int, set[int]] = {}  # retailer -> numbers of the currencies he named
        self._uses = 0
        self._rates: dict[int, tuple[float, int]] = {}  # pair -> (rate, observed_ms)
        self._sort()

    def __len__(self) -> int:
        """Return how many currencies were named, once for each retailer who did."""
        return self._uses

    def number(self, retailer: int, currency: str) -> int:
        """Return the number of a currency that a retailer names, giving it one.

        ``NO_ROOM`` when he has named too many, or all together have.
        """
        return self.number_of_code(retailer, currency_code(currency))

    def number_of_code(self, retailer: int, code: int) -> int:
        """Return the number of a currency given as ``currency_code``, or ``NO_ROOM``."""
        number = self._numbers.get(code)
        if number == 0:
            return 0
        named = self._named.setdefault(retailer, set())
        if number is None or number not in named:
            if len(named) >= CURRENCIES_A_RETAILER_MAX:
                return NO_ROOM
            if number is None:
                if len(self._names) > CURRENCIES_MAX:
                    return NO_ROOM
                number = self._numbers[code] = len(self._names)
                self._names.append(currency_name(code))
            named.add(number)
            self._uses += 1
        return number

    def numbers_of_codes(self, retailers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return int64[n], the number of each ``currency_code``; a new one gets a number."""
        if not codes.any():
            return np.zeros(len(codes), dtype=np.int64)
        pairs, inverse = pairs_of(retailers, codes)
        numbers = np.array([self.number_of_code(*pair) for pair in pairs])
        return np.asarray(numbers[inverse])

    def name(self, number: int) -> str:
        """Return the three letters of a currency, "" for none."""
        return self._names[number]

    def change(self, retailer: int, currency: int, into: int, rate: float, at_ms: int) -> float:
        """Set a rate; return how much it changed as a ratio, 0 when it is the first.

        Its inverse follows, unless a newer inverse was given itself.
        """
        pair, inverse = _pair(retailer, currency, into), _pair(retailer, into, currency)
        before = self._rates.get(pair, (0.0, NO_RATE_MS))[0]
        self._rates[pair] = (rate, at_ms)
        if at_ms > self._rates.get(inverse, (0.0, NO_RATE_MS))[1]:
            self._rates[inverse] = (1.0 / rate, at_ms)
        self._sort()
        return rate / before if before > 0.0 else 0.0

    def known_ms(self, retailer: int, currency: int, into: int) -> int:
        """Return when a rate was observed, ``NO_RATE_MS`` if never."""
        return self._rates.get(_pair(retailer, currency, into), (0.0, NO_RATE_MS))[1]

    def rates(
        self, retailers: np.ndarray, currencies: np.ndarray, into: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rate (float64, 0: missing) of each pair, and when it was observed.

        Currency 0 is the listing's own; what needs no rate has rate 1 and never goes stale.
        """
        same = (currencies == 0) | (currencies == into)
        rate = np.where(same, 1.0, 0.0)
        at_ms = np.where(same, np.int64(2**62), np.int64(NO_RATE_MS))
        if not same.all() and len(self._pairs):
            wanted = (retailers.astype(np.int64) << 16) | (currencies.astype(np.int64) << 8) | into
            place = np.minimum(np.searchsorted(self._pairs, wanted), len(self._pairs) - 1)
            found = ~same & (self._pairs[place] == wanted)
            rate = np.where(found, self._rate[place], rate)
            at_ms = np.where(found, self._rate_ms[place], at_ms)
        return rate, at_ms

    def state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "names": self._names[1:],
            "named": [[retailer, *sorted(named)] for retailer, named in self._named.items()],
            "rates": [[pair, *rate] for pair, rate in self._rates.items()],
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Currencies":
        """Return what :meth:`state` described."""
        currencies = cls()
        for number, name in enumerate(state["names"], start=1):
            currencies._numbers[currency_code(name)] = number
            currencies._names.append(name)
        for retailer, *named in state["named"]:
            currencies._named[retailer] = set(named)
            currencies._uses += len(named)
        currencies._rates = {pair: (rate, at_ms) for pair, rate, at_ms in state["rates"]}
        currencies._sort()
        return currencies

    def _sort(self) -> None:
        self._pairs = np.array(sorted(self._rates), dtype=np.int64)
        rates = [self._rates[pair] for pair in self._pairs.tolist()]
        self._rate = np.array([rate for rate, _ in rates], dtype=np.float64)
        self._rate_ms = np.array([at_ms for _, at_ms in rates], dtype=np.int64)


def _pair(retailer: int, currency: int, into: int) -> int:
    return (retailer << 16) | (currency << 8) | into


def currencies_used_up() -> str:
    """Return why a currency gets no number."""
    return (
        f"/currency: a retailer may name {CURRENCIES_A_RETAILER_MAX} currencies and a shard "
        f"{CURRENCIES_MAX}; use one of those named already"
    )
