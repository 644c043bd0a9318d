"""Conversion: whatever a dialect can say about size and length and a model can express arrives with its meaning."""

from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.capabilities import Capabilities, fit
from app.sizes import complete_size, nearest_ratio
from app.video import Media, Operation, VideoRequest

RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21")
RESOLUTIONS = ("480p", "540p", "720p", "1080p", "2160p")
SIZES = ("720x1280", "1280x720", "1024x1792", "1792x1024", "1920x1080")

Triple = tuple[str | None, str | None, str | None]

sides = st.integers(16, 4096)
sizes = st.builds(lambda w, h: f"{w}x{h}", sides, sides) | st.sampled_from(SIZES)
triples = st.tuples(
    st.none() | sizes | st.sampled_from(RATIOS),
    st.none() | st.sampled_from(RATIOS),
    st.none() | st.sampled_from(RESOLUTIONS),
)
ables = st.one_of(
    st.builds(Capabilities, sizes=st.lists(st.sampled_from(SIZES), unique=True).map(tuple)),
    st.builds(
        Capabilities,
        aspect_ratios=st.none() | st.lists(st.sampled_from(RATIOS), unique=True).map(tuple),
        resolutions=st.none() | st.lists(st.sampled_from(RESOLUTIONS), unique=True).map(tuple),
    ),
    st.just(Capabilities()),
)


def quotient(text: str, sep: str = ":") -> float:
    across, down = text.split(sep)
    return int(across) / int(down)


def request(**fields: object) -> VideoRequest:
    return VideoRequest.model_validate({"prompt": "p", "model": "m", **fields})


@given(triples)
def test_any_two_imply_the_third_and_a_size_implies_both(triple: Triple) -> None:
    try:
        found = complete_size(*triple)
    except ValueError:
        return
    assert len(found) != 2 or {"size"} & found.keys() == set()
    assert len(found) in (0, 1, 3)
    if "size" in found:
        width, height = (int(side) for side in found["size"].split("x"))
        assert found["resolution"] == f"{min(width, height)}p"
        assert abs(width / height / quotient(found["aspect_ratio"]) - 1) < 0.03
    assert complete_size(found.get("size"), found.get("aspect_ratio"), found.get("resolution")) == found


@given(triples, ables)
def test_a_converted_size_keeps_its_meaning(triple: Triple, able: Capabilities) -> None:
    try:
        asked = complete_size(*triple)
    except ValueError:
        return
    fitted = fit(request(**asked), able, can_link=False)
    said = fitted.request
    if fitted.problems:
        assert set(fitted.problems) <= {"size", "aspect_ratio", "resolution"}
        left = fitted.without_problems
        assert fit(left, able, can_link=False).problems == {}
        return
    if "aspect_ratio" in asked:
        assert said.aspect_ratio is not None
        assert abs(quotient(said.aspect_ratio) / quotient(asked["aspect_ratio"]) - 1) < 0.03
    if "resolution" in asked:
        assert said.resolution == asked["resolution"]
    if able.sizes is not None and asked:
        assert said.size in able.sizes
    if asked and able.aspect_ratios is not None and said.aspect_ratio:
        assert said.aspect_ratio in able.aspect_ratios
    if asked and able.resolutions is not None and said.resolution:
        assert said.resolution in able.resolutions


@given(
    st.one_of(st.integers(1, 3600), st.floats(0.1, 3600, allow_nan=False)),
    st.one_of(
        st.lists(st.sampled_from([4, 5, 8, 10, 12]), unique=True).map(lambda s: Capabilities(seconds=tuple(s))),
        st.tuples(st.integers(1, 10), st.integers(10, 60), st.booleans()).map(
            lambda t: Capabilities(seconds=t[:2], seconds_range=True, whole_seconds=t[2])
        ),
        st.just(Capabilities()),
    ),
)
def test_a_length_arrives_as_it_is_or_not_at_all(seconds: float, able: Capabilities) -> None:
    fitted = fit(request(seconds=seconds), able, can_link=False)
    assert fitted.request.seconds == seconds
    listed = able.seconds is not None and not able.seconds_range
    if not fitted.problems:
        assert not listed or seconds in (able.seconds or ())
    else:
        assert set(fitted.problems) == {"seconds"}
        assert fitted.without_problems.seconds is None


@given(sides, sides)
def test_the_ratio_of_every_size_can_be_read_again(width: int, height: int) -> None:
    ratio = complete_size(f"{width}x{height}", None, None)["aspect_ratio"]
    divisor = gcd(width, height)
    assert ratio == f"{width // divisor}:{height // divisor}"
    assert nearest_ratio(ratio, (ratio,)) == ratio


@pytest.mark.parametrize(
    ("given_triple", "expected"),
    [
        (("1280x720", None, None), {"size": "1280x720", "aspect_ratio": "16:9", "resolution": "720p"}),
        (("16:9", None, "720p"), {"size": "1280x720", "aspect_ratio": "16:9", "resolution": "720p"}),
        ((None, "9:16", "1080p"), {"size": "1080x1920", "aspect_ratio": "9:16", "resolution": "1080p"}),
        ((None, "32:18", None), {"aspect_ratio": "16:9"}),
        ((None, None, "4K"), {"resolution": "2160p"}),
        (("1360x752", "16:9", None), {"size": "1360x752", "aspect_ratio": "16:9", "resolution": "752p"}),
    ],
)
def test_sizes_ratios_and_resolutions_are_converted_as_in_these_examples(
    given_triple: Triple, expected: dict[str, str]
) -> None:
    assert complete_size(*given_triple) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        ("banana", None, None),
        ("0x0", None, None),
        ("1280x720", "1:1", None),
        ("1280x720", None, "1080p"),
        ("16:9", "1:1", None),
    ],
)
def test_invalid_and_contradictory_values_are_named(wrong: Triple) -> None:
    with pytest.raises(ValueError, match=r"^(size|aspect_ratio|resolution): "):
        complete_size(*wrong)


def test_uploads_need_an_address_where_a_vendor_takes_only_those() -> None:
    able = Capabilities(parameters=frozenset({"first_frame"}), media=frozenset({"url"}))
    asked = request(first_frame=Media(key="uploads/video_x/0"))
    assert "GATEWAY_PUBLIC_URL" in fit(asked, able, can_link=False).problems["first_frame"].why
    assert fit(asked, able, can_link=True).problems == {}
    assert fit(request(first_frame=Media(url="https://x.example/a.png")), able, can_link=False).problems == {}


def test_every_other_unsupported_parameter_is_named() -> None:
    able = Capabilities(operations=frozenset({Operation.generate}), parameters=frozenset({"seed"}))
    asked = request(operation="remix", seed=1, loop=True, extra={"camera": "left"})
    found = fit(asked, able, can_link=False)
    assert set(found.problems) == {"operation", "loop", "camera"}
    assert found.without_problems == request(operation="remix", seed=1)
