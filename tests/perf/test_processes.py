"""Processor time is counted for the right process, and only for what ran between two looks."""

import os
import subprocess
import sys
import time

from perf.processes import cores_used, family_seconds, kind_of, machine_seconds


def test_a_child_is_found_and_its_work_counted() -> None:
    before = family_seconds(os.getpid())
    busy = "import time; began = time.process_time()\nwhile time.process_time() < began + 0.2: pass"
    child = subprocess.Popen([sys.executable, "-c", busy + "\ninput()"], stdin=subprocess.PIPE)
    try:
        while family_seconds(os.getpid())[child.pid][1] < 0.2:
            time.sleep(0.01)
        after = family_seconds(os.getpid())
        assert cores_used(before, after, 1.0)["other"] >= 0.2
        assert after[os.getpid()][0] == "load"
    finally:
        child.communicate(b"\n")


def test_what_ended_meanwhile_is_left_out_and_what_is_new_counts_from_its_beginning() -> None:
    before = {1: ("load", 5.0), 2: ("broker", 3.0)}
    after = {1: ("load", 6.0), 3: ("owners", 0.5)}
    assert cores_used(before, after, 2.0) == {"load": 0.5, "owners": 0.25}


def test_our_processes_have_names() -> None:
    assert kind_of("python -m cluster.roles followers settings.json") == "followers"
    assert kind_of("ray::OwnerProcess") == "owners"
    assert kind_of("java -cp kafka/libs/* kafka.Kafka") == "broker"
    assert kind_of("postgres: checkpointer") == "postgres"
    assert kind_of("sleep 5") == "other"


def test_the_machine_was_at_least_as_busy_as_we_were() -> None:
    before, ours = machine_seconds(), time.process_time()
    while time.process_time() < ours + 0.1:
        pass
    assert machine_seconds()[0] - before[0] >= 0.05
