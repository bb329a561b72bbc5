"""Delta records to microbatches and back: the wire format of the two lanes.

A record is one JSON object, or an Arrow frame of at most ``FRAME_FACTS_MAX`` facts of one routing
key; its ``content-type`` tells. Decoding is total and deterministic: whatever the bytes, a record
becomes runs or refusals (``undecodable``, ``wrong_shard``) that name the place and the fix.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec
import numpy as np

from engine.deltas import AnyDelta
from engine.errors import RejectedInput
from engine.microbatch import FactColumns, Microbatch, ObjectDelta, Position, Refusal
from persistence.alike_frames import AlikeFrames
from persistence.frames import FRAME, FRAME_FACTS_MAX, FrameColumns, encode_frame
from persistence.json_facts import COLUMNS, REMEMBERED_MAX, JsonFacts
from persistence.lanes import EVERY_SHARD, Lanes
from persistence.named_facts import NamedFact, read_facts
from persistence.ports import Record

__all__ = [
    "EVERY_SHARD",
    "FRAME",
    "FRAME_FACTS_MAX",
    "JSON",
    "Decoder",
    "FrameColumns",
    "Lanes",
    "NamedFact",
    "encode_delta",
    "encode_frame",
    "read_facts",
]

JSON = "application/json"

_Runs = list[FactColumns | ObjectDelta]
_DEFAULTS = {
    delta: [(field.name, field.default) for field in msgspec.structs.fields(delta)]
    for delta in get_args(AnyDelta)
}
_ENCODER = msgspec.json.Encoder()


class Decoder:
    """Decodes the records of one shard's lanes; long-lived, since it remembers checked names.

    A fact that carries a ``command_id`` or an ``actor`` comes out as an ``ObjectDelta``, since
    columns could not answer it; all other facts come out as columns.
    """

    def __init__(
        self,
        shard: int,
        partitions: int,
        spreads: Mapping[str, int],
        remembered_max: int = REMEMBERED_MAX,
    ) -> None:
        self._lanes = Lanes(shard, partitions, dict(spreads))
        self._json = JsonFacts(self._lanes, remembered_max)
        self._frames = AlikeFrames(self._lanes)

    def decode(
        self,
        commands: Sequence[Record],
        deltas: Sequence[Record],
        *,
        last_command: int,
        last_delta: int,
    ) -> Microbatch:
        """Return the records as one microbatch, commands first.

        ``last_command`` and ``last_delta`` are the offsets consumed before; they stay where a
        lane brings nothing.
        """
        runs: _Runs = []
        refusals: list[Refusal] = []
        for lane, records in enumerate((commands, deltas)):
            for content_type, some in _by_content_type(records):
                new_runs, new_refusals = self._decode(lane, content_type, some)
                runs += new_runs
                refusals += new_refusals
        joined = _joined(runs)
        return Microbatch(
            runs=tuple(joined),
            refusals=tuple(refusals),
            last_command=commands[-1].offset if commands else last_command,
            last_delta=deltas[-1].offset if deltas else last_delta,
            deltas=len(refusals) + sum(1 if isinstance(r, ObjectDelta) else len(r) for r in joined),
        )

    def _decode(
        self, lane: int, content_type: str, records: Sequence[Record]
    ) -> tuple[_Runs, list[Refusal]]:
        if content_type == JSON:
            return self._json.decode(lane, records)
        if content_type == FRAME:
            blocks, refused = self._frames.decode(lane, records)
            return [*blocks], refused
        problem = f"content type {content_type[:80]!r} is unknown"
        reason = str(RejectedInput("", problem, f"send {JSON} or {FRAME}"))
        return [], [
            Refusal(Position(lane, record.offset, 0), "undecodable", reason) for record in records
        ]


def encode_delta(delta: AnyDelta) -> bytes:
    """Return the delta as a JSON record, without the fields that hold their defaults."""
    document: dict[str, Any] = {"type": type(delta).__name__}
    for name, default in _DEFAULTS[type(delta)]:
        value = getattr(delta, name)
        if value != default:
            document[name] = value
    return _ENCODER.encode(document)


def _by_content_type(records: Sequence[Record]) -> list[tuple[str, Sequence[Record]]]:
    """Return the records in order, cut where the content type changes."""
    types = [record.content_type for record in records]
    if types.count(JSON) == len(types):
        return [(JSON, records)] if types else []
    parts: list[tuple[str, Sequence[Record]]] = []
    begun = 0
    for place in range(1, len(types) + 1):
        if place == len(types) or types[place] != types[begun]:
            parts.append((_plain(types[begun]), records[begun:place]))
            begun = place
    return parts


def _plain(content_type: str) -> str:
    """Return the content type in lower case and without parameters, such as the charset."""
    return content_type.partition(";")[0].strip().lower()


def _joined(runs: _Runs) -> _Runs:
    """Return the runs with neighbouring blocks of facts joined into one."""
    joined: _Runs = []
    blocks: list[FactColumns] = []
    for run in [*runs, None]:
        if isinstance(run, FactColumns):
            blocks.append(run)
            continue
        if len(blocks) == 1:
            joined.append(blocks[0])
        elif blocks:
            columns = {
                name: np.concatenate([getattr(block, name) for block in blocks]) for name in COLUMNS
            }
            joined.append(FactColumns(**columns))
        blocks = []
        if run is not None:
            joined.append(run)
    return joined
