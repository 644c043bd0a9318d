"""Settings: their sources and precedence, and messages about mistakes, which never contain the value."""

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from app import dialects, providers
from app.providers.routing import Router
from app.settings import ConfigurationError, Settings, load


def set_all(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"GATEWAY_{name}", value)


def shown_keys(settings: Settings) -> list[str]:
    return list(settings.static_keys)


def refused(*parts: str) -> str:
    """Load; it has to fail with a message that names all of these."""
    with pytest.raises(ConfigurationError) as caught:
        providers.build(load())
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "sekret" not in message
    assert "sekret" not in repr(caught.value.__cause__)
    return message


def test_environment_beats_dotenv_beats_toml_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load().port, load().host, load().lease_s, load().log_level) == (8080, "127.0.0.1", 60, "info")
    Path("gateway.toml").write_text('port = 1\nhost = "toml"\nlease_s = 11\n')
    Path(".env").write_text("GATEWAY_PORT=2\nGATEWAY_HOST=dotenv\n")
    set_all(monkeypatch, PORT="3")
    settings = load()
    assert (settings.port, settings.host, settings.lease_s, settings.log_level) == (3, "dotenv", 11, "info")
    assert load(port=4).port == 4


def test_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("gateway.toml").write_text("port = 1\n")
    set_all(monkeypatch, PORT="", DATABASE_URL="")
    assert (load().port, load().database_url) == (1, None)


def test_a_toml_file_of_another_name_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("gateway.toml").write_text("port = 1\n")
    Path("other.toml").write_text("port = 2\n")
    Path("third.toml").write_text("port = 3\n")
    Path(".env").write_text("GATEWAY_CONFIG=other.toml\n")
    assert load().port == 2
    set_all(monkeypatch, CONFIG="third.toml")
    assert load().port == 3
    set_all(monkeypatch, CONFIG="none.toml")
    refused("GATEWAY_CONFIG names none.toml, and there is no such file")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("one", ["one"]),
        ("one,two", ["one", "two"]),
        (" one , two two ,", ["one", "two two"]),
        ('["one", "two, too"]', ["one", "two, too"]),
        ("[]", []),
    ],
)
def test_lists_are_comma_separated_or_json(text: str, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, API_KEYS=text)
    assert shown_keys(load()) == keys


@pytest.mark.parametrize("name", ["admin_key", "metrics_key", "pepper"])
def test_a_key_that_is_there_and_blank_is_refused(name: str) -> None:
    """Otherwise every client without a key would be accepted."""
    Path("gateway.toml").write_text(f'{name} = " "')
    refused(f"GATEWAY_{name.upper()}: must not be blank; leave it out to have none")


def test_a_storage_address_holds_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("s3://id:sekret@bucket/clips", "s3://bucket/clips?access_key=sekret"):
        set_all(monkeypatch, STORAGE_URL=url)
        refused("GATEWAY_STORAGE_URL: credentials and options go into the AWS_ variables, not into the address")


def test_lists_of_networks_and_models_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, ALLOW_NETWORKS="10.1.0.0/16, ::1", PROVIDERS__UP__KIND="openai")
    set_all(monkeypatch, PROVIDERS__UP__BASE_URL="http://h/v1", PROVIDERS__UP__MODELS="wan-2.2, other")
    settings = load()
    assert settings.allow_networks == [ip_network("10.1.0.0/16"), ip_network("::1/128")]
    assert providers.build(settings)["up"].listed == ("wan-2.2", "other")


def test_providers_and_aliases_are_read_from_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("gateway.toml").write_text("""
api_keys = ["a", "b, c"]

[providers.studio]
kind = "openai"
base_url = "http://10.1.0.5:8000/v1/"
models = ["wan-2.2"]

[models."sora-2"]
routes = ["studio/wan-2.2", "sandbox/testcard"]
unsupported = "drop"
""")
    set_all(monkeypatch, PROVIDERS__STUDIO__API_KEY="sekret")  # a secret need not be in the file
    settings = load()
    assert shown_keys(settings) == ["a", "b, c"]
    built = providers.build(settings)
    assert list(built) == ["studio", "sandbox"]
    assert built["studio"].config.base_url == "http://10.1.0.5:8000/v1"
    assert built["studio"].config.api_key is not None
    routes = [route.name for route in Router(settings, built).routes("sora-2")]
    assert routes == ["studio/wan-2.2", "sandbox/testcard"]
    assert settings.models["sora-2"].unsupported == "drop"


def test_nothing_secret_in_the_settings_when_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        DATABASE_URL="postgres://u:sekret1@h/db",
        API_KEYS="sekret2",
        ADMIN_KEY="sekret3",
        PEPPER="sekret4",
        PROVIDERS__UP__KIND="openai",
        PROVIDERS__UP__BASE_URL="http://h/v1",
        PROVIDERS__UP__API_KEY="sekret5",
    )
    settings = load()
    built = providers.build(settings)
    shown = (
        f"{settings!r} {settings} {built!r} {built['up'].config!r} {settings.model_dump_json(exclude={'providers'})}"
    )
    assert "sekret" not in shown


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("PORT", "sekret", "valid integer"),
        ("PORT", "70000", "65535"),
        ("LEASE_S", "1", "greater than or equal to 5"),
        ("API_KEYS", "sekret\tkey", "one line of printable ASCII characters"),
        ("API_KEYS", "[sekret", ""),
        ("API_KEYS", '{"web": "sekret\\tkey"}', "one line of printable ASCII characters"),
        ("API_KEYS", '{" ": "sekret"}', "a name is 1 to 100 printable characters"),
        ("API_KEYS", '{"web": "sekret", "shop": "sekret"}', "one key has two names"),
        ("RETENTION_S", "sekret", "expected seconds, or 30d, 12h, 15m, 90s"),
        ("LEASE_S", "nan", "expected seconds, or 30d, 12h, 15m, 90s"),
        ("JOB_DEADLINE_S", "99999d", "at most 100 years"),
        ("JOB_DEADLINE_S", "1e99", "at most 100 years"),
        ("ALLOW_NETWORKS", "sekret", ""),
        ("DATABASE_URL", "mysql://u:sekret@h/db", "expected postgresql://user:password@host:5432/database"),
        ("PUBLIC_URL", "sekret", "expected an address such as https://video.example.com"),
        ("STORAGE_URL", "ftp://sekret", "expected file:///path or s3://bucket/prefix"),
        ("LOG_FORMAT", "sekret", "'auto', 'json' or 'console'"),
        ("MODELS", '{"m": {"routes": []}}', "at least 1 item"),
        ("PRICES", '{"up/sora-2": {"720": 1}}', "up/sora-2: expected 480p, 720p, 1080p, 4k or the like, got '720'"),
        ("PRICES", '{"up/sora-2": "sekret"}', "__UP/SORA-2: expected US dollars per second, 0 or more, or a table"),
        ("PRICES", '{"up/sora-2": {"4k": 1, "2160p": 2}}', "up/sora-2: 2160p has two prices"),
        ("PROVIDERS", "sekret", ""),
        ("PROVIDERS__UP", "sekret", ""),
    ],
)
def test_mistake_names_the_variable_and_never_the_value(
    name: str, value: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, **{name: value})
    refused(f"GATEWAY_{name}", hint)


def test_all_mistakes_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PORT="x", LEASE_S="y")
    assert len(refused("GATEWAY_PORT: ", "GATEWAY_LEASE_S: ").splitlines()) == 2


def test_broken_toml_is_named_with_its_line() -> None:
    Path("gateway.toml").write_text('port = 1\npepper = "sekret\n')
    refused("gateway.toml", "line 2")


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("KIND", "opnai", "expected one of"),
        ("BASE_URL", "sekret.example", "expected an address such as https://api.example.com/v1"),
        ("API_KEYY", "sekret", "not permitted"),
        ("TIMEOUT_S", "sekret", "expected seconds, or 30d, 12h, 15m, 90s"),
        ("ENABLED", "sekret", "valid boolean"),
    ],
)
def test_mistake_in_a_provider_names_the_variable(
    field: str, value: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"KIND": "openai", "BASE_URL": "http://h/v1", field: value}
    set_all(monkeypatch, **{f"PROVIDERS__UP__{name}": text for name, text in given.items()})
    refused(f"GATEWAY_PROVIDERS__UP__{field}: ", hint)


def test_provider_without_what_it_needs_is_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_all(monkeypatch, PROVIDERS__UP__KIND="openai", PROVIDERS__UP__API_KEY="sekret")
    assert list(providers.build(load())) == ["sandbox"]
    said = "".join(capsys.readouterr())
    assert re.search(r"provider left out.*GATEWAY_PROVIDERS__UP__BASE_URL", said)
    assert "sekret" not in said


def test_provider_can_be_taken_out_without_deleting_it(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PROVIDERS__SANDBOX__ENABLED="false")
    assert providers.build(load()) == {}


def test_the_data_dir_is_absolute_before_the_directory_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load().data_dir == tmp_path / "data"
    set_all(monkeypatch, DATA_DIR="~/videos")
    assert load().data_dir == Path.home() / "videos"


# Unknown names


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            ".env",
            "\nGATEWAY_DATABSE_URL=x",
            ".env, line 2: GATEWAY_DATABSE_URL is not a setting; did you mean GATEWAY_DATA",
        ),
        (
            ".env",
            "export GATEWAY_RETENTION=5",
            ".env, line 1: GATEWAY_RETENTION is not a setting; did you mean GATEWAY_RETEN",
        ),
        (
            ".env",
            "GATEWAY_PROVIDER__UP__KIND=x",
            "GATEWAY_PROVIDER__UP__KIND is not a setting; did you mean GATEWAY_PROVIDERS__UP",
        ),
        (".env", "GATEWAY_QQQQ=1", "GATEWAY_QQQQ is not a setting; .env.example lists them all"),
        (".env", "gateway_port__x=1", "GATEWAY_PORT__X is not a setting"),
        (
            "gateway.toml",
            "port = 1\n[modles.a]\n",
            "gateway.toml, line 2: modles is not a setting; did you mean models?",
        ),
        ("gateway.toml", "PORT = 1", "gateway.toml, line 1: PORT is not a setting; did you mean port?"),
        ("gateway.toml", "GATEWAY_HOST = 'x'", "GATEWAY_HOST is not a setting; did you mean host?"),
        ("gateway.toml", '"a b" = 1', 'gateway.toml, line 1: "a b" is not a setting'),
    ],
)
def test_an_unknown_name_in_a_file_is_refused(file: str, text: str, message: str) -> None:
    Path(file).write_text(f"{text}\n")
    refused(message)


def test_names_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(
        "AWS_REGION=x\nPOSTGRES_PASSWORD=x\nGATEWAY_CONFIG=\nGATEWAY_PROVIDERS__UP__ENABLED=false\n"
    )
    set_all(monkeypatch, SERVICE_HOST="10.0.0.1", PORT_8080_TCP_ADDR="10.0.0.1", SERVICE_PORT_HTTP="80", STRICT="true")
    set_all(monkeypatch, API_PORT="tcp://10.0.0.2:80", POSTGRES_SERVICE_HOST="10.0.0.3", API_PORT_80_TCP_PROTO="tcp")
    monkeypatch.setenv("GATEWAY_CONFIG", "")
    set_all(monkeypatch, PROVIDERS__UP__KIND="openai")
    assert load().strict


def test_an_unknown_variable_is_refused_only_in_strict_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, RETENTION="sekret")
    assert load().retention_s == 30 * 86_400
    set_all(monkeypatch, STRICT="true")
    refused("GATEWAY_RETENTION is not a setting; did you mean GATEWAY_RETENTION_S?")


ALIASES = """
[models.lost]
routes = ["nope/x", "sandbox/testcrd", "lumne/seedance-2"]
[models.half]
routes = ["sandbox/testcard", "lumen/seedance-2", "off/x", { to = "plain", weight = 2 }]
[prices]
"sandbox/testcrd" = 1
"lumne/x" = 1
"sandbox/testcard" = 0
"lumen/any" = 1
"up/whatever" = 1
[providers.up]
kind = "openai"
base_url = "http://h/v1"
[providers.off]
kind = "openai"
enabled = false
"""


def test_aliases_and_prices_that_lead_nowhere_are_logged_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    Path("gateway.toml").write_text(ALIASES)
    settings = load()
    assert next(iter(Router(settings, providers.build(settings)).models())) == "half"
    lines = said(capsys).splitlines()
    (lost,) = (line for line in lines if "alias left out" in line)
    for reason in (
        "there is no provider nope",
        "sandbox has no model testcrd; did you mean sandbox/testcard?",
        "there is no provider lumne; did you mean lumen/seedance-2?",
    ):
        assert reason in lost
    (half,) = (line for line in lines if "routes left out" in line)
    for reason in (
        "the provider lumen is not configured; set GATEWAY_PROVIDERS__LUMEN__API_KEY",
        "the provider off is disabled, or left out for missing settings",
        "expected provider/upstream-model",
    ):
        assert reason in half
    assert "sandbox/testcard" not in half
    unused = [line for line in lines if "price without use" in line]
    assert [("lumne/x" in line, "sandbox/testcrd" in line) for line in unused] == [(False, True), (True, False)]


def test_names_that_lead_nowhere_are_refused_in_strict_mode_and_disabled_providers_are_not() -> None:
    Path("gateway.toml").write_text(f"strict = true\n{ALIASES}")
    lines = refused("the alias lost: nope/x: there is no provider nope", "the price of lumne/x: ").splitlines()
    assert len(lines) == 6
    assert not any(" off/x" in line or " lumen/seedance-2:" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[models.a]\nroute = ["x/y"]',
            "gateway.toml: [models.a] route: not a field of an alias; did you mean routes?",
        ),
        ('[models.a]\nroute = ["x/y"]', "gateway.toml: [models.a] routes: Field required"),
        ('[models."a b"]\nroutes = []', 'gateway.toml: [models."a b"] routes: List should have at least 1 item'),
        (
            '[models.a]\nroutes = ["x/y", {to = "x/y"}]',
            'gateway.toml: [models.a] routes 2: expected "provider/model", or {',
        ),
        ('[prices]\n"up/x" = "sekret"', 'gateway.toml: [prices] "up/x": expected US dollars per second, 0 or more'),
        ('[prices]\n"up/x" = {720p = -1}', 'gateway.toml: [prices] "up/x": expected US dollars per second, 0 or more'),
    ],
)
def test_a_mistake_in_a_table_names_the_file_and_the_table(text: str, message: str) -> None:
    Path("gateway.toml").write_text(text)
    refused(message)


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("12h", 43_200), ("15m", 900), ("90s", 90), ("61", 61), (" 2h ", 7_200)]
)
def test_durations_have_units(text: str, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, RETENTION_S=text, JOB_DEADLINE_S=text, MEDIA_URL_TTL_S=text, PROVIDERS__UP__TIMEOUT_S=text)
    set_all(monkeypatch, PROVIDERS__UP__KIND="openai", PROVIDERS__UP__BASE_URL="http://h/v1")
    set_all(monkeypatch, PROVIDERS__SANDBOX__SLOW_S=text, DIALECTS__APILAPLAS__HOLD_S="20s")
    settings = load()
    assert (settings.retention_s, settings.job_deadline_s, settings.media_url_ttl_s) == (seconds, seconds, seconds)
    built = providers.build(settings)
    assert (built["up"].config.timeout_s, built["sandbox"].config.model_dump()["slow_s"]) == (seconds, seconds)
    assert dialects.configure(settings)["apilaplas"].model_dump()["hold_s"] == 20


# Keys and secrets


def test_static_keys_may_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, API_KEYS='{"web shop": "sk-1:a=b", "batch": "sk-2"}')
    assert load().static_keys == {"sk-1:a=b": "web shop", "sk-2": "batch"}
    set_all(monkeypatch, API_KEYS="")
    Path("gateway.toml").write_text('[api_keys]\n"web shop" = "sk-3"\n')
    assert load().static_keys == {"sk-3": "web shop"}


def operators() -> dict[str, tuple[str, str]]:
    """Key and role of each admin key by its name."""
    return {name: (given.key.get_secret_value(), given.role) for name, given in load().operators.items()}


def test_admin_keys_have_names_and_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    assert operators() == {}
    Path("gateway.toml").write_text('[admin_keys]\nalice = "a"\n"dash board" = { key = "b", role = "read" }\n')
    assert operators() == {"alice": ("a", "write"), "dash board": ("b", "read")}
    set_all(monkeypatch, ADMIN_KEY="c", ADMIN_KEYS='{" bob ": {"key": "d"}}')
    assert operators() == {"admin": ("c", "write"), "bob": ("d", "write")}, "the environment wins over the file"
    set_all(monkeypatch, ADMIN_KEY="", ADMIN_KEYS='{"admin": "d"}')
    assert operators() == {"admin": ("d", "write")}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sekret", 'expected names and keys, {"alice": "..."}, or with a role'),
        ('["sekret"]', 'expected names and keys, {"alice": "..."}, or with a role'),
        ('{"a": "sekret", "a": "sekret2"}', "a name is given twice"),
        ('{"a": "sekret", " a": "sekret2"}', "a name is given twice"),
        ('{"a": "sekret", "b": "sekret"}', "one key has two names"),
        ('{"a": "sekret", "b": {"key": "sekret", "role": "read"}}', "one key has two names"),
        ('{"a": "the sekret of admin"}', "one key has two names: it is that of GATEWAY_ADMIN_KEY, too"),
        ('{"admin": "sekret"}', "admin is the name of GATEWAY_ADMIN_KEY; choose another one, or remove that setting"),
        ('{"sekret": {"key": "sekret2", "role": "root"}}', "expected names and keys"),
        ('{"sekret": {"key": "sekret2", "roles": "read"}}', "expected names and keys"),
        ('{"sekret": {"role": "read"}}', "expected names and keys"),
        ('{"sekret": 5}', "expected names and keys"),
        ('{"sekret": null}', "expected names and keys"),
        ('{" ": "sekret"}', "a name is 1 to 100 printable characters"),
        ('{"a\\nb": "sekret"}', "a name is 1 to 100 printable characters"),
        ('{"a": ""}', "one line of printable ASCII characters"),
        ('{"a": "sekr\\u00e9t"}', "one line of printable ASCII characters"),
        ('{"a": " "}', "begins and ends with another character than a blank"),
        ('{"a": " sekret"}', "begins and ends with another character than a blank"),
    ],
)
def test_a_mistake_in_the_admin_keys_is_named_without_them(
    text: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, ADMIN_KEY="the sekret of admin", ADMIN_KEYS=text)
    assert len(refused("GATEWAY_ADMIN_KEYS: ", hint).splitlines()) == 1


def test_one_variable_for_each_admin_key_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, ADMIN_KEYS__ALICE="sekret", API_KEYS__BOB="sekret")
    assert (operators(), load().static_keys) == ({}, {}), "they are ignored, as the warning says"
    set_all(monkeypatch, STRICT="true")
    refused("GATEWAY_ADMIN_KEYS__ALICE is not a setting")


@pytest.mark.parametrize("name", ["PEPPER", "ADMIN_KEY", "METRICS_KEY", "API_KEYS"])
def test_short_secrets_are_refused_in_strict_mode(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, STRICT="true", **{name: "0123456789abcdef"})
    assert load().short_secrets() == []
    set_all(monkeypatch, **{name: "sekret-15-chars"})
    assert refused(f"GATEWAY_{name}: ", "fewer than 16 characters").endswith("openssl rand -hex 32")


def test_short_admin_keys_are_refused_in_strict_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, STRICT="true", ADMIN_KEYS='{"a": "0123456789abcdef"}')
    assert load().short_secrets() == []
    set_all(monkeypatch, ADMIN_KEYS='{"a": "0123456789abcdef", "b": {"key": "sekret-15-chars"}}')
    refused("GATEWAY_ADMIN_KEYS: a key in it has fewer than 16 characters")


def test_trusted_proxies_are_networks_addresses_or_an_asterisk(monkeypatch: pytest.MonkeyPatch) -> None:
    loopback = [ip_network("127.0.0.1"), ip_network("::1")]
    assert load().trusted_proxies == loopback
    for text, proxies in (
        ("127.0.0.1, ::1", loopback),
        ("10.1.0.0/16", [ip_network("10.1.0.0/16")]),
        ("::ffff:10.0.0.1, ::ffff:10.1.0.0/112", [ip_network("10.0.0.1"), ip_network("10.1.0.0/16")]),
        ("::ffff:0:0/96, ::/80", [ip_network("0.0.0.0/0"), ip_network("::/80")]),
        ("*", ["*"]),
        ("[]", []),
        ("", loopback),
    ):
        set_all(monkeypatch, TRUSTED_PROXIES=text)
        assert load().trusted_proxies == proxies


WRONG_NETWORKS = ("10.1.0.1/16", "caddy", "10.0.0.1:80", "10.0.0.0/33", "10.1.0.0/16, proxy.example")


@pytest.mark.parametrize("text", [*WRONG_NETWORKS, "[1]", '["10.1.0.0/16", 2130706433]', "[true]"])
def test_a_wrong_network_is_one_error_that_shows_the_form(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = "expected networks such as 10.1.0.0/16, with no bit set behind the prefix, or addresses"
    set_all(monkeypatch, ALLOW_NETWORKS=text, TRUSTED_PROXIES=text)
    refused(f"GATEWAY_TRUSTED_PROXIES: {wanted}; or *", f"GATEWAY_ALLOW_NETWORKS: {wanted}")
