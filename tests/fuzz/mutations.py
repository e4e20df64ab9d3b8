"""Damage as files meet it: flipped bytes, lost ends, repeated and missing blocks, wild numbers."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hypothesis import strategies as st

_WILD = [0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1, 10 * 2**30]
_INSERTED = [b"\0", b"\xff\xfe", b'"', b"[", b"{", b"\n", b"\t", b"../", b"1e999", b"NaN", b"-"]


@dataclass(frozen=True)
class Change:
    """One change at a place given as a share of the file's length."""

    kind: str
    place: float
    length: int
    value: int

    def apply(self, data: bytes) -> bytes:
        """The changed bytes."""
        at = min(int(self.place * len(data)), max(0, len(data) - 1))
        end = min(len(data), at + self.length)
        match self.kind:
            case "flip":
                changed = bytes([data[at] ^ (1 << self.value % 8)]) if data else b""
                return data[:at] + changed + data[at + 1 :]
            case "cut":
                return data[:at]
            case "drop":
                return data[:at] + data[end:]
            case "repeat":
                return data[:end] + data[at:end] + data[end:]
            case "fill":
                return data[:at] + bytes([self.value % 256]) * (end - at) + data[end:]
            case "number":
                packed = struct.pack("<Q", _WILD[self.value % len(_WILD)])
                packed = packed[: 4 + 4 * (self.length % 2)]
                return data[:at] + packed + data[at + len(packed) :]
            case _:
                return data[:at] + _INSERTED[self.value % len(_INSERTED)] + data[at:]


def changes(most: int = 4) -> st.SearchStrategy[list[Change]]:
    """One to ``most`` changes; half of the places are in the first part, where headers are."""
    places = st.one_of(st.floats(0, 0.1), st.floats(0, 1), st.floats(0.9, 1))
    kinds = st.sampled_from(["flip", "cut", "drop", "repeat", "fill", "number", "insert"])
    one = st.builds(Change, kinds, places, st.integers(1, 64), st.integers(0, 255))
    return st.lists(one, min_size=1, max_size=most)


def apply(data: bytes, several: list[Change]) -> bytes:
    """All changes, one after the other."""
    for change in several:
        data = change.apply(data)
    return data
