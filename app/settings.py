"""Settings; no other module reads the environment.

Prefix `GATEWAY_`, nesting by `__`, lists as JSON or comma separated. Earlier sources win over later ones: environment,
`.env`, the TOML file named by `GATEWAY_CONFIG` (default `gateway.toml` if present), the defaults below.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal, Self, cast
from urllib.request import getproxies_environment

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.mistakes import (
    LEAST_SECRET,
    NESTED,
    OLD_ADMIN,
    check_admin_keys,
    check_database_url,
    check_keys,
    check_public_url,
    check_storage_url,
    explain,
    read_admin_keys,
    seconds,
    split_list,
    too_short,
    unknown_in_files,
    unknown_variables,
    web_origins,
    without_mapping,
)
from app.setting_types import AdminKey, ModelSettings, Prices, StaticKeys, by_resolution, check_proxy


class ConfigurationError(Exception):
    """The settings cannot be used; the message names the variable and the expected value."""


class Environment(EnvSettingsSource):
    """The environment, with variables for parts, `NAME__PART`, of no other settings than those that have parts."""

    def explode_env_vars(self, field_name: str, field: Any, env_vars: Mapping[str, str | None]) -> dict[str, Any]:
        return super().explode_env_vars(field_name, field, env_vars) if field_name in NESTED else {}


class Settings(BaseSettings):
    """All settings, one field per variable: `database_url` is `GATEWAY_DATABASE_URL`."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", env_nested_delimiter="__", env_file=".env", extra="ignore", env_ignore_empty=True
    )

    database_url: Annotated[SecretStr, AfterValidator(check_database_url)] | None = None
    """PostgreSQL 14 or newer: the URL as its provider shows it, in any form of libpq, with @ : / # % in the password
    percent-encoded; unset: an embedded PostgreSQL under `data_dir`."""
    database_listen_url: Annotated[SecretStr, AfterValidator(check_database_url)] | None = None
    """The same database without a pooler in between, for the LISTEN connection of each process; unset:
    `database_url`."""
    database_pool_size: Annotated[int, Field(ge=1, le=500)] = 10
    """Connections in each of the two pools of a process; LISTEN takes one more."""
    database_prepare: bool = True
    """Prepared statements; switched off by itself at the first error of a pooler in transaction mode."""
    data_dir: Path = Path("./data")
    """Directory of the embedded database, the files and the secrets."""
    storage_url: Annotated[str, AfterValidator(check_storage_url)] | None = None
    """`file:///path` (unset: `media` under `data_dir`) or `s3://bucket/prefix`, with the usual AWS_ variables."""
    storage_presign: bool = False
    """true: redirect media links to a presigned URL at the configured bucket; false: stream through the gateway."""
    public_url: Annotated[str, AfterValidator(check_public_url)] | None = None
    """The URL at which clients and upstreams reach this gateway; unset: taken from each request."""
    trusted_proxies: Annotated[list[IPv4Network | IPv6Network | Literal["*"]], NoDecode] = [
        IPv4Network("127.0.0.1"),
        IPv6Network("::1"),
    ]
    """Proxies, by network or address, whose X-Forwarded-For, -Proto, -Host and -Prefix are believed; `*`: any peer."""
    address_requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Requests that one address (of IPv6, one /64 network) may send to one process in a minute, before anything of them
    is looked at; `/admin/v1`, `/metrics`, `/healthz` and `/readyz` are not counted. Unset: no limit."""
    http_proxy: Annotated[SecretStr, AfterValidator(check_proxy)] | None = None
    """Proxy for all calls to providers and downloads of their results, `http://user:password@proxy:3128`; `none`:
    direct. Unset: the proxies of the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY), if it has some."""
    webhook_proxy: Annotated[SecretStr, AfterValidator(check_proxy)] | None = None
    """Proxy for webhooks; unset: direct, whatever the environment says."""
    cors_origins: Annotated[list[str], NoDecode, AfterValidator(web_origins)] = []
    """Origins of web pages whose scripts may use the API, such as `https://app.example.com`, or `*` for all; media
    links are open to all pages."""
    host: str = "127.0.0.1"
    """The address `serve` listens on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """The port `serve` listens on; 0 takes a free one."""
    api_keys: Annotated[StaticKeys, NoDecode, AfterValidator(check_keys)] = []
    """Static API keys, comma separated or a JSON list, for simple set-ups; each has its own project. A JSON object
    names the projects, `{"web shop": "sk-..."}`, as does the table `[api_keys]` in the TOML file."""
    admin_key: SecretStr | None = None
    """The key of the administration API under /admin/v1; unset: the API is off."""
    admin_keys: Annotated[dict[str, AdminKey], NoDecode, BeforeValidator(read_admin_keys)] = {}
    """Keys of the administration API by name, beside `admin_key`, whose name is `admin`: a JSON object, or the table
    `[admin_keys]` in the TOML file. `{"key": "...", "role": "read"}` instead of a key: it may only read."""
    console: bool = True
    """false: no console, the pages under /console."""
    console_session_s: Annotated[int, Field(ge=60)] = 43_200
    """Seconds after its last use at which a session of the console ends; after seven days every one does."""
    metrics_key: SecretStr | None = None
    """The key of /metrics, and of a worker's metrics, as a bearer token; unset: no key is needed."""
    pepper: SecretStr | None = None
    """The secret for API key hashes and media links; unset: made on first start and kept in `data_dir`. Machines that
    share a database must share it."""
    strict: bool = False
    """true: refuse short keys and secrets, and unknown names in the environment, in aliases and in prices; false: warn
    of them, and refuse a short pepper or admin key only at the first start on an external address."""
    default_model: str | None = None
    """The model of requests that name none; unset: `sandbox/testcard` while no vendor is configured, else a 400."""
    dialects: dict[str, dict[str, Any]] = {}
    """`DIALECTS__<NAME>__<FIELD>`, such as the model of a dialect whose requests carry no model name; the fields are
    those of the dialect's `Config`."""
    allow_networks: Annotated[list[IPv4Network | IPv6Network], NoDecode] = []
    """Private networks that addresses from clients may reach, such as `10.1.0.0/16`."""
    providers: Annotated[dict[str, dict[str, Any]], Field(repr=False)] = {}
    """`PROVIDERS__<NAME>__KIND|API_KEY|BASE_URL|...`; KIND defaults to the name."""
    prices: Prices = {}
    """US dollars per second, by `provider/upstream-model`: one number, or a table by resolution (`""`: any other)."""
    assumed_length_s: Annotated[float, Field(gt=0, le=3_600)] = 60
    """Seconds that an output is charged for at most where neither the request nor the model names a length."""
    catalogue: bool = True
    """true: models can be asked for by their names in the catalogue (docs/catalogue.md), whoever serves them."""
    catalogue_file: Path | None = None
    """A TOML file whose models replace those of the catalogue by the same name, or are added to it."""
    fallback_price_factor: Annotated[float, Field(ge=1)] = 2.5
    """A route of a catalogue model that is dearer than this many times the cheapest one is not tried."""
    models: dict[str, ModelSettings] = {}
    """Aliases; easier to write as `[models."name"]` in the TOML file."""

    poll_interval_s: Annotated[float, Field(gt=0, le=3_600)] | None = None
    """First gap between two polls of one upstream task in seconds; unset: the provider's default."""
    lease_s: Annotated[float, Field(ge=5, le=3_600)] = 60
    """Seconds after which another worker takes over the work of one that died."""
    job_deadline_s: Annotated[float, Field(ge=1)] = 3_600
    """Seconds after which an unfinished job fails."""
    late_watch_s: Annotated[float, Field(ge=0)] = 86_400
    """Seconds for which an upstream task is still polled after its job was cancelled or failed, for a late success;
    and for which money stays held for a submit with an unknown outcome."""
    run_worker: bool = True
    """true: `serve` also works on jobs; false: only separate `worker` processes do."""
    worker_metrics_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """Port, on `host`, for /metrics and /healthz of a separate `worker` process, not with `--once`; unset: none."""
    worker_tick_s: Annotated[float, Field(gt=0, le=60)] = 1
    """Seconds between two queries of an idle worker for due work."""
    worker_concurrency: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Upstream calls that one worker process makes at once."""
    worker_stores: Annotated[int, Field(ge=1, le=1_000)] = 8
    """Files that one worker process downloads at once."""
    webhook_timeout_s: Annotated[float, Field(gt=0, le=120)] = 30
    """Seconds for one webhook call, the whole answer included."""
    webhook_concurrency: Annotated[int, Field(ge=1, le=1_000)] = 50
    """Webhook calls that one worker process makes at once; one endpoint or host gets at most a fifth of them."""
    shutdown_grace_s: Annotated[float, Field(ge=0)] = 20
    """Seconds for which a stopping worker lets running calls finish before it releases them."""

    fold_retries: bool = False
    """true: a create that an SDK repeats without an idempotency key (`x-stainless-retry-count`) returns the video of
    the same request in the last two minutes; false: it is a new job."""
    max_body_mb: Annotated[int, Field(ge=1)] = 64
    """Largest request body in MiB; more is refused with 413."""
    max_bodies_mb: Annotated[int, Field(ge=1)] = 512
    """Request bodies in MiB that one process receives and holds at once, beyond the first 64 KiB of each; one
    project gets half of it. More is refused with 503 or, for the project, 429. Bodies beyond 1 MiB are in temporary
    files."""
    max_file_mb: Annotated[int, Field(ge=1)] = 4_096
    """Largest file downloaded from an upstream, in MiB."""
    retention_s: Annotated[int, Field(ge=0)] = 30 * 86_400
    """Seconds for which finished files are kept; 0 keeps them for ever."""
    max_waiting: Annotated[int, Field(ge=1)] = 2_000
    """Open waiting (`?wait=`) and event-stream requests per key and process; more are refused with 429."""
    media_url_ttl_s: Annotated[int, Field(ge=60)] = 3_600
    """Lifetime of a signed media link in seconds."""
    purge_interval_s: Annotated[float, Field(gt=0)] = 60
    """Seconds between two searches for expired files."""
    ffmpeg_timeout_s: Annotated[float, Field(gt=0)] = 60
    """Time-out in seconds of ffmpeg for one picture or test card."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest severity that is logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto` is coloured lines on a terminal and JSON elsewhere."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        dotenv = cast("DotEnvSettingsSource", dotenv_settings)
        file = _toml_file(dotenv)
        toml = TomlConfigSettingsSource(settings_cls, toml_file=file)
        named = (Path(str(dotenv.env_file)), dotenv.env_vars)
        if unknown := unknown_in_files(named, (file, toml.toml_data), settings_cls.model_fields):
            raise ConfigurationError("\n".join(unknown))
        return init_settings, Environment(settings_cls), dotenv_settings, toml

    @field_validator("*", mode="before")
    @classmethod
    def _seconds(cls, value: Any, info: ValidationInfo) -> Any:
        return seconds(info.field_name, value)

    @field_validator("api_keys", "allow_networks", "cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_list(cls, value: Any, info: ValidationInfo) -> Any:
        return split_list(info.field_name, value)

    @field_validator("allow_networks", "trusted_proxies")
    @classmethod
    def _unmapped(cls, value: list[Any]) -> list[Any]:
        return [without_mapping(entry) for entry in value]

    @field_validator("admin_keys")
    @classmethod
    def _admin_keys_differ(cls, value: dict[str, AdminKey], info: ValidationInfo) -> dict[str, AdminKey]:
        check_admin_keys({name: given.key for name, given in value.items()}, info.data.get("admin_key"))
        return value

    @field_validator("admin_key", "metrics_key", "pepper")
    @classmethod
    def _not_blank(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse a blank key: every client would have it."""
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("must not be blank; leave it out to have none")
        return value

    @field_validator("prices")
    @classmethod
    def _normalise_resolutions(cls, value: Prices) -> Prices:
        """Name resolutions as requests do, 4k as 2160p; a price under another name would never be found."""
        return {model: by_resolution(model, p) if isinstance(p, dict) else p for model, p in value.items()}

    @model_validator(mode="after")
    def _absolute_data_dir(self) -> Self:
        self.data_dir = self.data_dir.expanduser().absolute()
        return self

    _overrides: frozenset[str] = PrivateAttr(frozenset())

    @property
    def overrides(self) -> frozenset[str]:
        """The fields that the command line gave, whatever the sources say."""
        return self._overrides

    @cached_property
    def secrets_dir(self) -> Path:
        return self.data_dir / "secrets"

    @cached_property
    def static_keys(self) -> Mapping[str, str | None]:
        """The keys of `api_keys`, each with the name of its project if it has one."""
        if isinstance(self.api_keys, dict):
            return {key.get_secret_value(): name.strip() for name, key in self.api_keys.items()}
        return {key.get_secret_value(): None for key in self.api_keys}

    @cached_property
    def operators(self) -> Mapping[str, AdminKey]:
        """The keys of the administration API by name; empty: it is off."""
        single = {} if self.admin_key is None else {OLD_ADMIN: AdminKey(key=self.admin_key)}
        return {**single, **self.admin_keys}

    def short_secrets(self) -> list[str]:
        """Variables whose secret is short enough to be guessed."""
        single = {"pepper": self.pepper, "admin_key": self.admin_key, "metrics_key": self.metrics_key}
        found = [name for name, value in single.items() if value and len(value.get_secret_value()) < LEAST_SECRET]
        found += ["api_keys"] if any(len(key) < LEAST_SECRET for key in self.static_keys) else []
        short = (len(given.key.get_secret_value()) < LEAST_SECRET for given in self.admin_keys.values())
        found += ["admin_keys"] if any(short) else []
        return [f"GATEWAY_{name.upper()}" for name in found]


def load(**overrides: Any) -> Settings:
    """Read all sources. Raises `ConfigurationError` with one line for each invalid variable."""
    try:
        found = Settings(**overrides)
        found._overrides = frozenset(overrides)
        if found.strict and (problems := [*unknown_names(), *map(too_short, found.short_secrets())]):
            raise ConfigurationError("\n".join(problems))
        return found
    except ValidationError as error:
        raise ConfigurationError(explain(error, "GATEWAY_", *_toml(overrides.get("_env_file", ".env")))) from None
    except TOMLDecodeError as error:
        raise ConfigurationError(f"{os.environ.get('GATEWAY_CONFIG', 'gateway.toml')} is not TOML: {error}") from None
    except ValueError as error:  # broken JSON, wrong types of nested variables
        field = re.search(r'field "(\w+)"', str(error))
        name = f"GATEWAY_{field[1].upper()}" if field else "the configuration"
        raise ConfigurationError(f"{name}: expected a JSON document; one variable for each part is easier") from None


def unknown_names() -> list[str]:
    """Sentences about the variables of the environment that are not settings."""
    return unknown_variables(os.environ, Settings.model_fields)


def are_set(names: Sequence[str]) -> list[str]:
    """Those of these variables, mostly of other programs, that the environment or `.env` has; without their values."""
    dotenv = DotEnvSettingsSource(Settings, env_file=".env").env_vars
    return [name for name in names if os.environ.get(name) or dotenv.get(name.lower())]


def otel_variables() -> dict[str, str]:
    """The variables of OpenTelemetry that the environment has, where its SDK reads them itself."""
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}


PARTS = {"providers": 3, "dialects": 3, "models": 3, "prices": 2}
"""Length of the path to a part of a nested setting, which may come from another source than the part beside it."""


def origins() -> tuple[list[str], dict[tuple[str, ...], tuple[Any, str]]]:
    """The files that are read, and each value that is set as its source has it, with the source's name; by its path,
    `("providers", "lumen", "api_key")`. For settings that `load` accepts; the values are secret."""
    dotenv = DotEnvSettingsSource(Settings, env_file=".env")
    file = _toml_file(dotenv)
    toml = TomlConfigSettingsSource(Settings, toml_file=file)
    found: dict[tuple[str, ...], tuple[Any, str]] = {}
    for name, values in (
        ("environment", Environment(Settings)()),
        (".env", dotenv()),
        (str(file), toml.toml_data),
    ):
        for field in Settings.model_fields.keys() & values.keys():
            for path, value in parts((field,), values[field]):
                found.setdefault(path, (value, name))
    return _existing(file), found


def files() -> list[str]:
    """The files that are read."""
    return _existing(_toml_file(DotEnvSettingsSource(Settings, env_file=".env")))


def _existing(toml: Path) -> list[str]:
    return [name for name in (".env", str(toml)) if Path(name).is_file()]


def parts(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The parts of a nested setting, each with its path; a value that has none is its only part."""
    if len(path) < PARTS.get(path[0], 1) and isinstance(value, Mapping):
        for name, inner in value.items():
            yield from parts((*path, str(name)), inner)
    else:
        yield path, value


def _toml_file(dotenv: DotEnvSettingsSource) -> Path:
    file = os.environ.get("GATEWAY_CONFIG") or dotenv.env_vars.get("gateway_config")
    if file is not None and not Path(file).is_file():
        raise ConfigurationError(f"GATEWAY_CONFIG names {file}, and there is no such file")
    return Path(file or "gateway.toml")


def _toml(env_file: Path | str | None) -> tuple[Path, Mapping[str, Any]]:
    """The TOML file and its document, for messages."""
    file = _toml_file(DotEnvSettingsSource(Settings, env_file=env_file))
    return file, TomlConfigSettingsSource(Settings, toml_file=file).toml_data


def export(**values: object) -> None:
    """Pass settings to the server processes that this one starts, through the environment."""
    os.environ.update({f"GATEWAY_{name.upper()}": str(value) for name, value in values.items()})


METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that makes prometheus_client keep the values of a process in a folder."""


def metrics_folder() -> Path | None:
    """The folder in which the processes of one server keep their metrics; None: this process serves alone."""
    folder = os.environ.get(METRICS_FOLDER)
    return Path(folder) if folder else None


def share_metrics(folder: Path) -> None:
    """Have the processes that this one starts keep their metrics in a folder."""
    os.environ[METRICS_FOLDER] = str(folder)


def make_data_dir(path: Path) -> None:
    """Create the data directory for this user alone. Made by root it can be passed, though not listed: the embedded
    PostgreSQL runs as another user in it. A directory that exists keeps its mode."""
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)


def environment_proxies() -> dict[str, str]:
    """The variables of outbound proxies that programs share, by their names without `_proxy`: http, https, all, no."""
    return getproxies_environment()


def child_process_env() -> dict[str, str]:
    """The environment for a program that is not ours: what it needs to start, and none of our secrets."""
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}


def is_terminal() -> bool:
    return sys.stderr.isatty()
