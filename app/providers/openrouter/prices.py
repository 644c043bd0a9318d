"""Prices in OpenRouter's list of models: names such as `duration_seconds_with_audio_720p` with an amount each. Pure;
all input is untrusted.

The names are not documented; these are the ones of the list of 2026-10-09 as a public copy had it, those of the
vendor's own example (`per-video-second-1080p`), and the one recorded on 2026-11-25 (`video-second-720p`). What a name
that is not known stands for is not known either, so that a model with one has no price; nor does an amount that cannot
be taken make way for another, cheaper one. Inferred: that a second of a video has `TOKENS_PER_PIXEL_SECOND` tokens a
pixel, which gives the amounts a second of public price lists of 2026-10; that a price for a mode, a sound or a
resolution applies before one without, and of two that apply the dearer one.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from app.video import RESOLUTION, shorter_side

TOKENS_PER_PIXEL_SECOND = 24 / 1024
MAX_DOLLARS_PER_SECOND = 20
MAX_DOLLARS_PER_TOKEN = 0.001
MAX_DOLLARS_PER_IMAGE = 5
MAX_LEAST_DOLLARS = 50
"""Amounts above these are mistakes of the list and not taken, as are zero and less: what they are for has no price."""
MAX_NAMES = 24
MAX_CHARACTERS = 80

Mode = Literal["text", "image", "reference", "video", "continuation"]
MODES: Mapping[str | None, Mode] = {
    "text_to_video": "text",
    "image_to_video": "image",
    "reference": "reference",
    "with_video_input": "video",
    "video_continuation": "continuation",
}
_RESOLUTION = r"(?:[-_](?P<resolution>\d{3,4}p|[1248]k))?"
_SOUND = r"(?:_(?P<sound>with|without)_audio)?"
PER_SECOND = re.compile(
    rf"(?:(?P<mode>text_to_video|image_to_video|reference)_)?duration_seconds{_SOUND}{_RESOLUTION}"
    rf"|(?:per[-_])?video[-_]second{_RESOLUTION.replace('resolution', 'resolution2')}"
)
CENTS_PER_SECOND = re.compile(
    rf"cents_per_(?:video_output_second|second_output|second_(?P<mode>video_continuation)){_RESOLUTION}{_SOUND}"
)
PER_TOKEN = re.compile(rf"video_tokens{_RESOLUTION}{_SOUND}(?:_(?P<mode>with_video_input))?")


@dataclass(frozen=True)
class Rate:
    """One price of the list; None and `""` where it applies to all modes, sounds or resolutions."""

    dollars: float | None
    """For a second, or for a token; None where the list has an amount that is not taken."""
    per_token: bool = False
    mode: Mode | None = None
    sound: bool | None = None
    resolution: str = ""

    def applies(self, mode: Mode, sound: bool, resolution: str) -> bool:
        return self.mode in (None, mode) and self.sound in (None, sound) and self.resolution in ("", resolution)

    def amount(self, mode: Mode, pixels: int) -> float | None:
        """Dollars for a second; None where they are not known."""
        if not self.per_token or self.dollars is None:
            return self.dollars
        return None if mode == "video" else self.dollars * pixels * TOKENS_PER_PIXEL_SECOND

    @property
    def named(self) -> frozenset[str]:
        """The parts that it names."""
        parts = {"mode": self.mode, "sound": self.sound, "resolution": self.resolution or None}
        return frozenset(name for name, value in parts.items() if value is not None)


@dataclass(frozen=True)
class Rates:
    """All prices of one model."""

    all: tuple[Rate, ...] = ()
    least_micros: int = 0
    image_micros: int = 0
    """For each picture of a request."""
    reference_micros: int = 0
    """For each reference picture."""
    complete: bool = True
    """False: the list has more than is understood, so that nothing has a price."""

    @property
    def resolutions(self) -> tuple[str, ...]:
        """The resolutions that a price names."""
        return tuple(dict.fromkeys(rate.resolution for rate in self.all if rate.resolution))

    def per_second(self, modes: Collection[Mode], sound: bool, resolution: str, pixels: int) -> int | None:
        """Micros for a second of frames of so many pixels; None if the list has no price for it. Of several modes the
        dearest counts, of those that a price names. Tokens of a video that is given count, too, and are not known."""
        amounts: list[float | None] = []
        for mode in modes:
            found = [rate for rate in self.all if rate.applies(mode, sound, resolution)]
            closest = [rate for rate in found if not any(rate.named < other.named for other in found)]
            if len(modes) == 1 or any(rate.mode == mode for rate in closest):
                amounts += [rate.amount(mode, pixels) for rate in closest]
        known = [amount for amount in amounts if amount is not None]
        if not self.complete or not known or len(known) < len(amounts):
            return None
        micros = round(max(known) * 1_000_000)
        return micros if 0 < micros <= MAX_DOLLARS_PER_SECOND * 1_000_000 else None


def read_rates(skus: Any) -> Rates:
    """The prices of `pricing_skus`."""
    if not isinstance(skus, dict) or len(skus) > MAX_NAMES:
        return Rates(complete=False)
    rates, complete = [], True
    fixed = {"minimum_cents_per_generation": 0, "cents_per_image_input": 0, "reference_images": 0}
    for name, value in skus.items():
        amount = _amount(value)
        rate = _rate(name.lower(), amount) if isinstance(name, str) and len(name) <= MAX_CHARACTERS else None
        if rate is not None:
            rates.append(rate)
        elif name in fixed and amount is not None:
            most = MAX_LEAST_DOLLARS if name.startswith("minimum") else MAX_DOLLARS_PER_IMAGE
            dollars = amount / 100 if "cents" in name else amount
            fixed[name] = round(dollars * 1_000_000)
            complete = complete and fixed[name] > 0 and dollars <= most
        else:
            complete = False
    if not complete:
        fixed = dict.fromkeys(fixed, 0)
    least, image, reference = fixed.values()
    return Rates(_without_repeats(rates), least, image, reference, complete)


def _rate(name: str, amount: float | None) -> Rate | None:
    """The price of a name; None if the name is not known."""
    for pattern, per_token, unit in ((PER_SECOND, False, 1), (CENTS_PER_SECOND, False, 100), (PER_TOKEN, True, 1)):
        match = pattern.fullmatch(name)
        if match is None:
            continue
        parts = match.groupdict()
        named = parts["resolution"] or parts.get("resolution2") or ""
        resolution = word_of(named)
        if named and not resolution:
            return None
        sound = None if parts["sound"] is None else parts["sound"] == "with"
        dollars = None if amount is None else amount / unit
        if dollars is not None and dollars > (MAX_DOLLARS_PER_TOKEN if per_token else MAX_DOLLARS_PER_SECOND):
            dollars = None
        return Rate(dollars, per_token, MODES.get(parts["mode"]), sound, resolution)
    return None


def _without_repeats(rates: list[Rate]) -> tuple[Rate, ...]:
    """The prices without those for a sound that is the same with any: there the sound makes no difference."""
    plain = {(rate.mode, rate.resolution): rate.dollars for rate in rates if rate.sound is None}
    return tuple(
        rate for rate in rates if rate.sound is None or plain.get((rate.mode, rate.resolution)) != rate.dollars
    )


def _amount(value: Any) -> float | None:
    """A positive amount, written as a decimal or a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or len(str(value)) > MAX_CHARACTERS:
        return None
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return float(amount) if amount.is_finite() and 0 < amount < 10**6 else None


def word_of(resolution: str) -> str:
    """A resolution in the gateway's words; empty if it is none."""
    return f"{shorter_side(resolution)}p" if RESOLUTION.fullmatch(resolution) else ""
