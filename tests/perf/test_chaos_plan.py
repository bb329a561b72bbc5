"""The seed decides every fault, and every kind and target comes up."""

from itertools import islice

from perf.chaos.plan import BROKER_CUTS, DISKS, JUMPS_MS, KINDS, TARGETS, plan


def test_a_seed_repeats_its_faults() -> None:
    first = list(islice(plan(7, shards=2), 500))
    assert first == list(islice(plan(7, shards=2), 500))
    assert first != list(islice(plan(8, shards=2), 500))


def test_the_faults_of_a_seed_stay_what_they_were() -> None:
    """A seed in a report must repeat it with the next version too, or the version must say so."""
    names = [fault.name for fault in islice(plan(1, shards=2), 6)]
    assert names == FIRST_OF_SEED_1


def test_every_kind_and_target_comes_up() -> None:
    faults = list(islice(plan(3, shards=2), 3000))
    assert {fault.kind for fault in faults} == set(KINDS)
    struck = {fault.target.partition(":")[0] for fault in faults if fault.kind in ("kill", "pause")}
    assert struck == set(TARGETS)
    assert {fault.target for fault in faults if fault.kind == "disk"} == set(DISKS)
    clocks = [fault for fault in faults if fault.kind == "clock"]
    for struck_clock in ("owner:0", "owner:1", "gateway"):
        jumps = {fault.how for fault in clocks if fault.target == struck_clock}
        assert jumps == set(map(str, JUMPS_MS)), struck_clock
    cuts = {fault.how.split()[0] for fault in faults if fault.target == "broker" and fault.how}
    assert cuts == {mode.value for mode in BROKER_CUTS}
    assert {fault.target for fault in faults if fault.target.startswith("owner")} == {
        "owner:0",
        "owner:1",
    }


def test_only_the_kinds_asked_for() -> None:
    faults = list(islice(plan(3, shards=2, kinds=("pause", "clock")), 100))
    assert {fault.kind for fault in faults} == {"pause", "clock"}


def test_the_pace_is_kept_on_average() -> None:
    faults = list(islice(plan(5, shards=2), 2000))
    assert 0.95 < sum(fault.gap for fault in faults) / len(faults) < 1.05
    assert all(0 < fault.seconds <= 8 for fault in faults)


FIRST_OF_SEED_1 = [
    "kill spare",
    "kill owner:0",
    "kill postgres",
    "kill followers",
    "kill postgres",
    "cut broker delay everybody",
]
