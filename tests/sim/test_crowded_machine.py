"""What takes long on a crowded machine is decided in the end, and what hangs for ever is skipped.

Production's supervisor, watch and owners, in virtual time.
"""

import logging

import pytest

from persistence.ports import COMMANDS, DELTAS
from tests.sim.crowd import Crowd

HANGS = float("inf")
NO_RECORD = ""
"""Work that is due by its time, as a close: the shard would stop as murderous."""

FOUND_S = 5.0
"""A hang must be found so soon, where nobody fell on what its owner tries."""


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Owners that skip a record say so loudly."""
    logging.disable(logging.CRITICAL)


def lived(
    topic: str, own_s: float, share: float, until_s: float, *, standby: bool = False, seed: int = 1
) -> Crowd:
    """Let a world live until its long record is decided or skipped."""
    world = Crowd(seed, topic=topic, own_s=own_s, share=share, standby=standby)
    world.live(until_s, is_over=lambda: world.passed)
    return world


@pytest.mark.parametrize("standby", [False, True])
@pytest.mark.parametrize("topic", [COMMANDS, DELTAS, NO_RECORD])
@pytest.mark.parametrize(
    ("own_s", "share"),
    [
        (0.4, 1.0),  # nobody is ended at all
        (3.0, 1.0),  # longer than a silence may last
        (8.0, 0.5),
        (1.5, 0.03),  # longer than waiting for a processor is excused
        (6.0, 0.02),
    ],
)
def test_a_good_record_is_decided_however_crowded_the_machine_is(
    topic: str, own_s: float, share: float, standby: bool
) -> None:
    """It ended one owner after the other, and the fourth skipped it for murder."""
    world = lived(topic, own_s, share, 900.0, standby=standby)
    assert world.passed, world.alarms
    assert world.skipped == 0
    assert not [alarm for alarm in world.alarms if alarm.what == "shard_stopped"]
    if own_s / share < 2.0:
        assert world.kills == []


@pytest.mark.parametrize("topic", [COMMANDS, DELTAS, NO_RECORD])
@pytest.mark.parametrize(
    ("own_s", "share"),
    [
        (4.0, 0.05),
        (6.0, 0.02),  # longer than a start that waits for a processor is excused
        (31.0, 1.0),  # longer than a start may show no progress
        (30.0, 0.1),
    ],
)
def test_what_was_decided_for_long_is_replayed_by_a_successor(
    topic: str, own_s: float, share: float
) -> None:
    """Its owner was killed before a checkpoint held it, and no heir ever came up again."""
    world = Crowd(1, topic=topic, own_s=own_s, share=share)
    world.live(4_000.0, is_over=lambda: world.passed, killed=True)
    assert world.lived_on, world.watch.places[0].ends
    assert world.skipped == 0
    assert not [alarm for alarm in world.alarms if alarm.what == "shard_stopped"]


@pytest.mark.parametrize("standby", [False, True])
@pytest.mark.parametrize("topic", [COMMANDS, DELTAS])
def test_a_good_record_that_comes_alone_is_decided_too(topic: str, standby: bool) -> None:
    """Its heirs try it alone from the first, so each of their ends would count against it."""
    world = Crowd(1, topic=topic, own_s=20.0, share=1.0, standby=standby, last=True)
    world.live(300.0, is_over=lambda: world.passed)
    assert world.passed, world.alarms
    assert world.skipped == 0
    assert len(world.kills) == 3
    deciding = world.hosts[3].actor
    assert deciding.phase == "live"
    assert deciding._pardoned == set(world.watch.places[0].pardoned), "a standby is told later"


@pytest.mark.parametrize("standby", [False, True])
@pytest.mark.parametrize("topic", [COMMANDS, DELTAS])
def test_what_hangs_for_ever_is_skipped_in_the_end(topic: str, standby: bool) -> None:
    world = lived(topic, HANGS, 1.0, 200.0, standby=standby)
    assert world.passed, world.alarms
    assert world.skipped == 1
    silent_s = [silent_s for _, silent_s in world.kills]
    # The first is found as ever; who skips a record has seen two that had all the time they needed.
    assert max(silent_s[:2]) < FOUND_S
    assert [silent_s > 30.0 for silent_s in silent_s[-2:]] == [True, True]


def test_what_loops_for_ever_on_a_crowded_machine_is_skipped_in_the_end() -> None:
    """It has a processor now and then, and waits for its turn as honest work does."""
    world = lived(DELTAS, HANGS, 0.5, 900.0)
    assert world.passed, world.alarms
    assert world.skipped == 1


@pytest.mark.parametrize("seed", range(2, 8))
def test_no_order_of_events_lets_a_good_record_be_skipped(seed: int) -> None:
    world = lived(DELTAS if seed % 2 else COMMANDS, 9.0, 0.6, 300.0, seed=seed)
    assert world.passed, world.alarms
    assert world.skipped == 0


def test_an_owner_that_hangs_where_nobody_fell_is_found_as_soon_as_ever() -> None:
    """Patience is for what is tried: it is no licence for who falls silent elsewhere."""
    world = Crowd(1, topic=DELTAS, own_s=3.0, share=1.0)
    world.live(300.0, is_over=lambda: world.passed, stopped_after_s=2.0)
    assert len(world.kills) >= 3, "two met the long record, and one was stopped"
    assert world.found_s < FOUND_S
