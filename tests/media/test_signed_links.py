"""Signatures of media links."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.media.signed_links import Signer


def signed(path: str = "/media/v_1", expires: int = 1_000) -> tuple[str, str]:
    exp, sig = Signer(b"secret").sign(path, expires).split("&")
    return exp.removeprefix("exp="), sig.removeprefix("sig=")


def test_a_signed_link_opens_its_path_until_it_expires() -> None:
    exp, sig = signed()
    assert Signer(b"secret").verify("/media/v_1", exp, sig, 999.9)
    assert not Signer(b"secret").verify("/media/v_1", exp, sig, 1_000)
    assert Signer(b"secret").sign("/media/v_1", 1_000) == f"exp={exp}&sig={sig}"
    assert len(sig) == 43


@pytest.mark.parametrize("path", ["/media/v_2", "/media/v_1/", "", "/media/v_1\n1000", "/media/V_1"])
def test_a_signature_opens_no_other_path(path: str) -> None:
    assert not Signer(b"secret").verify(path, *signed(), 0)


@pytest.mark.parametrize(
    "exp", ["1001", "", "01000", " 1000", "1000 ", "+1000", "1_000", "1e3", "١٠٠٠", "-1", "9" * 5000]
)
def test_an_expiry_cannot_be_changed(exp: str) -> None:
    assert not Signer(b"secret").verify("/media/v_1", exp, signed()[1], 0)


@given(sig=st.text(max_size=50))
def test_a_signature_cannot_be_guessed(sig: str) -> None:
    assert not Signer(b"secret").verify("/media/v_1", "1000", sig, 0)


def test_signatures_of_other_secrets_and_altered_ones_are_refused() -> None:
    exp, sig = signed()
    assert not Signer(b"other").verify("/media/v_1", exp, sig, 0)
    for forged in (sig[:-1], sig + "=", sig + "A", sig.swapcase(), "\ud800", "é" * 43):
        assert not Signer(b"secret").verify("/media/v_1", exp, forged, 0)
