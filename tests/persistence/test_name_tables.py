"""A table of names is a dictionary, whatever the names' hashes and however many are asked for."""

import numpy as np
import pytest

from persistence import name_tables
from persistence.name_tables import ONE_BY_ONE_MAX, NameTable


@pytest.mark.parametrize("hashes", [1, 3, 2**64 - 59])
@pytest.mark.parametrize("length", [5, 8, 19])
def test_a_table_of_names_is_a_dictionary(
    monkeypatch: pytest.MonkeyPatch, length: int, hashes: int
) -> None:
    """Names crowd where hashes agree; a block holds few or many, new ones and known ones, twice."""
    hashed = name_tables._hashes
    monkeypatch.setattr(name_tables, "_hashes", lambda words: hashed(words) % np.uint64(hashes))
    random = np.random.default_rng(length)
    every = np.unique(random.integers(ord("a"), ord("d"), (150, length), dtype=np.uint8), axis=0)
    table, model = NameTable(100_000), dict[bytes, int]()
    for size in (1, 3, ONE_BY_ONE_MAX, ONE_BY_ONE_MAX + 1, 2, 70, 5, 90, 1):
        names = every[random.integers(0, len(every), size)]
        expected = [int.from_bytes(name.tobytes()[:5]) + int(name[-1]) for name in names]
        has = [name[1] != ord("a") for name in names]  # of others nothing is remembered

        def admit(
            rows: np.ndarray,
            names: np.ndarray = names,
            expected: list[int] = expected,
            has: list[bool] = has,
        ) -> tuple[np.ndarray, np.ndarray]:
            asked = [names[row].tobytes() for row in rows.tolist()]
            assert len(set(asked)) == len(asked)
            assert not model.keys() & set(asked)
            model.update({name: 1 for name in asked if name[1] != ord("a")})
            numbers = [expected[row] for row in rows.tolist()]
            return np.array(numbers, dtype=np.uint64), np.array([has[row] for row in rows.tolist()])

        numbers, missing = table.find(length, names, admit)
        assert missing.tolist() == [not each for each in has]
        told = [number if each else 0 for number, each in zip(expected, has, strict=True)]
        assert numbers.tolist() == told
