"""Frames that are read together, without Arrow, become what each becomes alone."""

from typing import Any

import numpy as np
import pytest

from engine.microbatch import FactColumns, Refusal
from persistence import alike_frames
from persistence.alike_frames import AlikeFrames
from persistence.frames import EXTENSION, FRAME, FrameColumns, encode_frame, null_counts_at
from persistence.lanes import Lanes
from persistence.ports import Record
from tests.persistence.alike import same_columns

ROWS = 83
NAMES = ("a", "b", "c")


def frame(seed: int, **columns: Any) -> bytes:
    """Return a frame of prices, counts, sales and costs, with some columns replaced."""
    random = np.random.default_rng(seed)
    kind = random.integers(1, 5, ROWS).astype(np.uint8)
    kind[:2] = 1, 2  # so that each frame has names and nulls
    priced, sold = kind == 1, kind == 3
    named = priced | (sold & (random.random(ROWS) < 0.5))
    plain: dict[str, Any] = {
        "kind": kind,
        "listing": random.integers(0, 2**63, ROWS, dtype=np.uint64),
        "amount": random.integers(1, 5_000, ROWS),
        "observed_ms": random.integers(1, 2**40, ROWS),
        "rival": np.where(priced, random.integers(0, 3, ROWS), -1).astype(np.int32),
        "rival_names": NAMES,
        "shipping_minor": np.where(priced, random.integers(0, 9, ROWS), 0).astype(np.int32),
        "currency": np.where(priced & (kind[::-1] == 1), 0x455552, 0).astype(np.uint32),
        "flags": np.where(priced, random.integers(0, 4, ROWS), 0).astype(np.uint8),
        "source": np.where(named, random.integers(0, 3, ROWS), -1).astype(np.int32),
        "source_names": NAMES,
        "source_seq": np.where(sold, random.integers(0, 2**50, ROWS), -1),
        "event": np.where(sold, random.integers(0, 2**63, ROWS), 0).astype(np.uint64),
    }
    return encode_frame("acme", FrameColumns(**{**plain, **columns}))


def priced(seed: int, **prices: int) -> bytes:
    """Return a frame whose sales tell their price; of rows by place, another one."""
    random = np.random.default_rng(seed)
    random.integers(1, 5, ROWS)
    kind = np.random.default_rng(seed).integers(1, 5, ROWS)
    kind[:2] = 1, 2
    sold = np.where(kind == 3, random.integers(1, 5_000, ROWS), 0).astype(np.int32)
    for row, price in prices.items():
        sold[int(row.removeprefix("row_"))] = price
    return frame(seed, sold_minor=sold)


def changed(value: bytes, at: int, put: bytes) -> bytes:
    return value[:at] + put + value[at + len(put) :]


def column(name: str, row: int, number: int, seed: int = 9) -> bytes:
    """Return a frame with one number written over, laid out as before."""
    first = AlikeFrames(Lanes(0, 1, {}))
    value = frame(seed)
    first.decode(1, [record(0, value)])
    (layout,) = first._layouts.values()
    size = {"kind": 1, "flags": 1, "rival": 4, "source": 4, "shipping_minor": 4, "currency": 4}
    width = size.get(name, 8)
    at = layout.values_at[name] + row * width
    return changed(value, at, number.to_bytes(width, "little", signed=number < 0))


def record(offset: int, value: bytes, key: bytes | None = b"acme") -> Record:
    return Record(offset, 0, key, value, FRAME)


def joined(blocks: list[FactColumns]) -> FactColumns:
    names = FactColumns.__struct_fields__
    return FactColumns(**{n: np.concatenate([getattr(b, n) for b in blocks]) for n in names})


def decoded(
    records: list[Record], frames: AlikeFrames | None = None
) -> tuple[FactColumns, list[Refusal]]:
    """Return what becomes of records together; each alone where nobody remembers layouts."""
    if frames is not None:
        blocks, refusals = frames.decode(1, records)
        return joined(blocks), refusals
    alone = [AlikeFrames(Lanes(0, 1, {})).decode(1, [one]) for one in records]
    return joined([b for blocks, _ in alone for b in blocks]), [r for _, of in alone for r in of]


def check(records: list[Record]) -> list[Refusal]:
    """Compare frames behind one that was remembered with each decoded alone."""
    frames = AlikeFrames(Lanes(0, 1, {}))
    frames.decode(1, [record(0, frame(1))])
    found, refused = decoded(records, frames)
    wanted, refusals = decoded(records)
    assert same_columns(found, wanted)
    assert refused == refusals
    return refusals


def test_alike_frames_are_read_without_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = AlikeFrames(Lanes(0, 1, {}))
    records = [record(offset, frame(offset)) for offset in range(1, 6)]
    wanted, _ = decoded(records)
    frames.decode(1, [record(0, frame(0))])
    monkeypatch.setattr(alike_frames, "decode_frame", None)
    blocks, refused = frames.decode(1, records)
    assert len(blocks) == 1
    assert same_columns(blocks[0], wanted)
    assert refused == []


def test_frames_without_nulls_are_alike_too() -> None:
    prices = {
        "kind": np.ones(ROWS, np.uint8),
        "rival": np.arange(ROWS, dtype=np.int32) % 3,
        "shipping_minor": np.zeros(ROWS, np.int32),
        "source_seq": np.full(ROWS, -1),
        "source": np.full(ROWS, 1, np.int32),
        "event": np.zeros(ROWS, np.uint64),
    }
    frames = AlikeFrames(Lanes(0, 1, {}))
    records = [record(offset, frame(offset, **prices)) for offset in range(4)]
    frames.decode(1, records[:1])
    found, _ = decoded(records[1:], frames)
    assert same_columns(found, decoded(records[1:])[0])


def test_frames_with_prices_of_sales_are_alike_too(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = AlikeFrames(Lanes(0, 1, {}))
    records = [record(offset, priced(offset)) for offset in range(4)]
    wanted, _ = decoded(records[1:])
    frames.decode(1, records[:1])
    monkeypatch.setattr(alike_frames, "decode_frame", None)
    found, _ = decoded(records[1:], frames)
    assert same_columns(found, wanted)


@pytest.mark.parametrize("wrong", [{"row_1": 7}, {"row_0": -1}, {"row_1": 2**30 + 1}])
def test_a_broken_price_of_a_sale_is_told_in_the_same_words(wrong: dict[str, int]) -> None:
    frames = AlikeFrames(Lanes(0, 1, {}))
    frames.decode(1, [record(0, priced(1))])
    records = [record(1, priced(2)), record(2, priced(3, **wrong)), record(3, priced(4))]
    found, refused = decoded(records, frames)
    wanted, refusals = decoded(records)
    assert same_columns(found, wanted)
    assert refused == refusals != []
    assert "/sold_minor/" in refused[0].reason


BROKEN = {
    "a kind that is none": ("kind", 3, 9),
    "no amount": ("amount", 0, 0),
    "a huge amount": ("amount", 1, 2**31),
    "before time": ("observed_ms", 5, -1),
    "after time": ("observed_ms", 5, 2**60),
    "a price that no rival asks": ("rival", 0, -1),
    "a rival without a name": ("rival", 0, 3),
    "shipping of a count": ("shipping_minor", 1, 5),
    "shipping that is paid out": ("shipping_minor", 0, -5),
    "shipping beyond all bounds": ("shipping_minor", 0, 2**31 - 1),
    "a currency of a count": ("currency", 1, 0x455552),
    "a currency in small letters": ("currency", 0, 0x657572),
    "flags of a count": ("flags", 1, 1),
    "flags that are none": ("flags", 0, 4),
    "a source without a name": ("source", 0, 7),
    "a sequence of a price": ("source_seq", 0, 7),
    "a sequence below none": ("source_seq", 0, -2),
    "an event of a count": ("event", 1, 7),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_number_is_told_in_the_same_words(broken: str) -> None:
    records = [record(1, frame(2)), record(2, column(*BROKEN[broken])), record(3, frame(3))]
    assert check(records) != []


def test_a_null_may_hold_any_number() -> None:
    assert check([record(1, column("rival", 1, 99)), record(2, column("rival", 1, -99))]) == []


def test_a_miscounted_null_is_no_frame() -> None:
    value = frame(4)
    at = null_counts_at(value)["rival"]
    (refusal,) = check([record(1, changed(value, at, (1).to_bytes(8, "little"))), record(2, value)])
    assert refusal.verdict == "undecodable"


def test_a_name_for_a_null_does_not_go_unseen() -> None:
    """The bits say that a count has a rival; Arrow would refuse that they are miscounted."""
    frames = AlikeFrames(Lanes(0, 1, {}))
    value = frame(4)
    frames.decode(1, [record(0, value)])
    (layout,) = frames._layouts.values()
    at = layout.validity_at["rival"]
    assert check([record(1, changed(value, at, bytes([value[at] ^ 2]))), record(2, value)]) != []


def test_other_names_and_other_keys_are_other_layouts() -> None:
    others = frame(5, rival_names=("a", "b", "d"))
    (refusal,) = check([record(1, others), record(2, frame(6), b"emca"), record(3, frame(7))])
    assert refusal.verdict == "wrong_shard"


def test_what_marks_an_extension_is_refused_where_numbers_stand() -> None:
    value = frame(8)
    middle = len(value) // 2
    (refusal, *_) = check([record(1, changed(value, middle, EXTENSION)), record(2, value)])
    assert "extension types are not read" in refusal.reason


def test_names_that_are_not_taken_are_not_remembered() -> None:
    frames = AlikeFrames(Lanes(0, 1, {}))
    long = frame(1, rival_names=("a", "b", "c" * 201))
    frames.decode(1, [record(0, long)])
    assert frames._layouts == {}
    check([record(1, long), record(2, long)])


def test_layouts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike_frames, "LAYOUTS_MAX", 3)
    frames = AlikeFrames(Lanes(0, 1, {}))
    for length in range(10):
        frames.decode(1, [record(length, frame(1, rival_names=("a", "b", "c" + "x" * 8 * length)))])
    assert 0 < len(frames._layouts) <= 3
