"""Write the golden files that are not there yet: ``python -m tests.golden.write``.

A file that exists is never written again. Old bytes must stay readable for ever, so a change of
format gets a new version, new examples and new files beside the old ones.
"""

from pathlib import Path

from persistence.decision_records import encode
from persistence.wire import encode_delta, encode_frame
from tests.golden import examples

FOLDER = Path(__file__).parent


def golden_files() -> dict[str, bytes]:
    """Return the bytes of every example in the present format."""
    files = {
        "decision_v1_epoch_started.bin": encode(examples.EPOCH_STARTED),
        "decision_v1_trying.bin": encode(examples.TRYING),
        "decision_v1_heartbeat.bin": encode(examples.heartbeat()),
        "decision_v1_decision.bin": encode(examples.decision()),
        "frame_v1.arrow": encode_frame("acme", examples.frame()),
        "frame_v2.arrow": encode_frame("acme", examples.priced_frame()),
    }
    for name, delta in examples.deltas().items():
        files[f"delta_v1_{name}.json"] = encode_delta(delta)
    return files


if __name__ == "__main__":
    for name, written in golden_files().items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(written)
