"""Size, aspect ratio and resolution: one triple of which any two imply the third. Pure."""

from math import gcd, log2

from app.video import ASPECT_RATIO, MAX_SIDE, SIZE, shorter_side

RATIO_TOLERANCE = 0.02
"""Sizes in use are rarely exact: 1360x752 is sold as 16:9."""

COMMON_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9", "9:21")
"""Ratios that a size is converted to, for a model that takes ratios but does not list them."""


def nearest_ratio(ratio: str, allowed: tuple[str, ...]) -> str | None:
    """Return the allowed ratio nearest to `ratio`; None if none is within two per cent."""
    across, down = _ratio(ratio, "aspect_ratio")
    best = min(allowed, key=lambda other: _distance(across / down, other), default=None)
    return best if best is not None and _distance(across / down, best) <= RATIO_TOLERANCE else None


def distance(one: str | None, other: str) -> float:
    """Distance of two ratios, or of two resolutions, in doublings; none from nothing."""
    if one is None:
        return 0
    if ":" in other:
        (across, down), (other_across, other_down) = _ratio(one, "aspect_ratio"), _ratio(other, "aspect_ratio")
        return abs(log2(across * other_down / (down * other_across)))
    return abs(log2(_shorter_side(one) / _shorter_side(other)))


def _distance(quotient: float, other: str) -> float:
    across, down = _ratio(other, "aspect_ratio")
    return abs(quotient * down / across - 1)


def complete_size(size: str | None, aspect_ratio: str | None, resolution: str | None) -> dict[str, str]:
    """Return the triple size, aspect_ratio, resolution as far as the given values imply it.

    `size` may be `1280x720` or a ratio such as `16:9`. Any two imply the third, and a size implies both others.
    Raises `ValueError("<field>: <why>")` for invalid or contradictory values.
    """
    triple: dict[str, str] = {}
    if size is not None and ASPECT_RATIO.fullmatch(size):
        if aspect_ratio is not None and _ratio(aspect_ratio, "aspect_ratio") != _ratio(size, "size"):
            raise ValueError(f"size: {size} contradicts the aspect_ratio {aspect_ratio}")
        size, aspect_ratio = None, size
    if aspect_ratio is not None:
        triple["aspect_ratio"] = "{}:{}".format(*_ratio(aspect_ratio, "aspect_ratio"))
    if resolution is not None:
        triple["resolution"] = f"{_shorter_side(resolution)}p"
    if size is not None:
        match = SIZE.fullmatch(size)
        if match is None:
            raise ValueError(f"size: expected WIDTHxHEIGHT such as 1280x720, or a ratio such as 16:9, got {size!r:.60}")
        width, height = int(match[1]), int(match[2])
        if max(width, height) > MAX_SIDE or min(width, height) < 16:
            raise ValueError(f"size: each side must be between 16 and {MAX_SIDE} pixels, got {width}x{height}")
        divisor = gcd(width, height)
        implied = {"aspect_ratio": f"{width // divisor}:{height // divisor}", "resolution": f"{min(width, height)}p"}
        for name, value in implied.items():
            if triple.setdefault(name, value) != value and not (
                name == "aspect_ratio" and nearest_ratio(value, (triple[name],))
            ):
                raise ValueError(f"size: {width}x{height} contradicts the {name} {triple[name]}")
        triple["size"] = f"{width}x{height}"
    elif len(triple) == 2:
        across, down = _ratio(triple["aspect_ratio"], "aspect_ratio")
        short = _shorter_side(triple["resolution"])
        long = round(short * max(across, down) / min(across, down) / 2) * 2
        triple["size"] = f"{long}x{short}" if across >= down else f"{short}x{long}"
    return triple


def complete_by_size(
    size: str | None, aspect_ratio: str | None, resolution: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the triple as `complete_size` does, where a size in pixels takes precedence over an aspect ratio or a
    resolution that contradicts it; the second value has those that were ignored. Raises `ValueError` for invalid
    values."""
    ignored: dict[str, str] = {}
    given = {"aspect_ratio": aspect_ratio, "resolution": resolution}
    if size is not None and SIZE.fullmatch(size):
        complete_size(size, None, None)
        for name, value in given.items():
            alone = {**dict.fromkeys(given), name: value}
            complete_size(None, **alone)
            try:
                complete_size(size, **alone)
            except ValueError:
                ignored[name] = str(value)
    return complete_size(size, **{name: None if name in ignored else value for name, value in given.items()}), ignored


def _ratio(text: str, field: str) -> tuple[int, int]:
    match = ASPECT_RATIO.fullmatch(text)
    if match is None:
        raise ValueError(f"{field}: expected a ratio such as 16:9, got {text!r:.60}")
    across, down = int(match[1]), int(match[2])
    divisor = gcd(across, down)
    return across // divisor, down // divisor


def _shorter_side(text: str) -> int:
    try:
        return shorter_side(text)
    except ValueError as error:
        raise ValueError(f"resolution: {error}") from None
