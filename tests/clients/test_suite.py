"""The command that drives the real clients: what it refuses, and what the clients see of the environment."""

import pytest

from clients.__main__ import inherited, main


def test_words_that_no_client_has_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["Sora"]) == 2
    assert (
        "no client has Sora in its title; there are: OpenAI, Python, OpenAI, Node, LiteLLM" in capsys.readouterr().err
    )


def test_an_address_without_a_key_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URL", "https://video.example.com")
    monkeypatch.delenv("KEY", raising=False)
    assert main([]) == 2
    assert "KEY has to be an API key" in capsys.readouterr().err


def test_clients_see_no_secrets_of_the_environment() -> None:
    needed = {
        "PATH": "/bin",
        "HOME": "/root",
        "https_proxy": "http://p",
        "UV_INDEX_URL": "http://u",
        "npm_config_x": "1",
    }
    assert inherited({**needed, "GATEWAY_PEPPER": "p", "AWS_SECRET_ACCESS_KEY": "s", "OPENAI_API_KEY": "k"}) == needed
