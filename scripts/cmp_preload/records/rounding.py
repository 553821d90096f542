"""What the driver makes of a size by itself, and what the pool adds; as in core/base/types.h."""

from __future__ import annotations

from typing import NamedTuple

from cmp_preload.records import tiers

SMALL_GRAIN = 512  # below 2 MiB the driver cuts blocks in these steps


def driver_bytes(size: int) -> int:
    """What one allocation of `size` bytes takes of the device without the pool."""
    grain = SMALL_GRAIN if size < tiers.LARGE_GRANULE else tiers.LARGE_GRANULE
    return -(-size // grain) * grain


class Bytes(NamedTuple):
    """Of the allocations of one size or of several, all together."""

    asked: int
    by_driver: int  # more, by the driver's own rounding
    by_pool: int  # more than that, by the pool's

    @property
    def taken(self) -> int:
        return self.asked + self.by_driver + self.by_pool


def of_tier(tier: dict) -> Bytes:
    """A trace knows each size; statistics know their sum, so there all of a row are taken to be of
    its mean size."""
    asked, requests = int(tier["requested_bytes"]), int(tier["requests"])
    if not requests:
        return Bytes(asked, 0, 0)
    driver = tier.get("driver_bytes", requests * driver_bytes(-(-asked // requests)))
    block = int(tier["bytes"])
    blocks = int(tier["block_bytes"])
    if block < tiers.LARGE_GRANULE:  # a block of 256 bytes takes 512
        blocks += (requests - int(tier["real"])) * (driver_bytes(block) - block)
    driver = max(driver, asked)
    return Bytes(asked, driver - asked, max(0, blocks - driver))


def of_tiers(rows: list[dict]) -> Bytes:
    each = [of_tier(tier) for tier in rows]
    return Bytes(*(sum(column) for column in zip(*each))) if each else Bytes(0, 0, 0)
