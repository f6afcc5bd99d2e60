"""Aspect buckets: clips of one batch have one size, and sizes follow the videos' shapes instead of padding them."""

from __future__ import annotations

import math
from collections.abc import Sequence

Size = tuple[int, int]

_LEAST_SIDE_SHARE = 0.5
_LARGEST_SHARE = 1.03


def bucket_sizes(area: int, multiple: int = 16, longest_ratio: float = 2.0) -> list[Size]:
    """Widths and heights of about `area` pixels, all multiples of `multiple`, from upright to wide.

    Args:
        area: Pixels of a frame; no bucket has more than 3 % more.
        multiple: Of both sides.
        longest_ratio: Largest ratio of the long side to the short one.
    """
    sizes = set()
    least = max(multiple, int(_LEAST_SIDE_SHARE * math.sqrt(area / longest_ratio)))
    for width in range(multiple, int(math.sqrt(area * longest_ratio)) + multiple, multiple):
        most = int(_LARGEST_SHARE * area / width / multiple)
        height = min(round(area / width / multiple), most) * multiple
        if height < least or width < least:
            continue
        if max(width / height, height / width) <= longest_ratio:
            sizes.add((width, height))
    return sorted(sizes, key=lambda size: size[0] / size[1])


def nearest_bucket(width: int, height: int, sizes: Sequence[Size]) -> Size:
    """The size whose shape is nearest to width x height, by the logarithm of the ratio."""
    wanted = math.log(width / height)
    return min(sizes, key=lambda size: (abs(math.log(size[0] / size[1]) - wanted), -size[0] * size[1]))
