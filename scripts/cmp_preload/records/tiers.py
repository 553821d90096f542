"""Which sizes of blocks there are; as in core/base/tiers.h."""

from __future__ import annotations

STEPS = (1, 2, 4, 8, 16)  # of a doubling, below 2 MiB
MOST_TIER_BYTES = (1 << 47) - 1  # as in core/base/tiers.h
LARGE_GRANULE = 2 << 20  # larger blocks are multiples of it


def tier_of(size: int, steps: int) -> int:
    """The tier that serves a request. One of 0 bytes, in a CSV: the first."""
    unit = (max(size, 1) - 1) // 256
    doubling = (unit | steps).bit_length() - steps.bit_length()
    return doubling * steps + (unit >> doubling)


def tier_size(tier: int, steps: int) -> int:
    """The bytes of a block of a tier."""
    if tier < steps:
        return (tier + 1) * 256
    doubling = tier // steps - 1
    return ((tier - doubling * steps + 1) << doubling) * 256
