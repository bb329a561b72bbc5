"""In a day learning makes half of the large moves that the breaker lets pass within a window."""

import numpy as np

from engine.learnt import RetailerLearning
from engine.rationed import put_off
from tests.engine.builders import DAY, World


def test_large_moves_beyond_half_of_what_the_breaker_lets_pass_wait() -> None:
    world = World()
    world.send(*(world.listing(f"S{number}") for number in range(30)))
    memory, held = world.shard._memory, RetailerLearning(0, DAY)
    moves = np.full(30, np.log(1.2))
    moves[::2] = 0.1  # not large: these never wait
    still = np.zeros(30)
    late = put_off(memory, held, 0, moves, still)
    # 20 listings may always do as they like, so ten of the fifteen large moves pass.
    np.testing.assert_array_equal(np.flatnonzero(late), [21, 23, 25, 27, 29])
    assert held.large_moves == 10
    # The same day has no more to give, but for what a change of cost explains.
    assert put_off(memory, held, 0, moves, still).sum() == 15
    assert not put_off(memory, held, 0, moves, np.full(30, 0.15)).any()
    assert not put_off(memory, held, 0, -moves * 0.5, still).any()
