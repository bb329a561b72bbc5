"""What an operator may set: defaults < ``repricer.toml`` < ``REPRICER_...`` < flags.

The only place where the environment is read. An unknown key is an error with a suggestion, since a
misspelt guardrail that is ignored in silence is worse than none. A secret is only ever the name of
a file. Everything below ``cluster`` receives plain values.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from engine.errors import RejectedInput
from engine.routing import EVEN_SHARE_MAX, SLOTS_MAX, even_spread, shares_of

PREFIX = "REPRICER_"
FILE_NAME = "repricer.toml"
FILE_VARIABLE = "REPRICER_CONFIG"
"""Names the settings file; it is no setting itself."""

Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LogSettings(_Part):
    """Where deltas and decisions are written."""

    backend: Literal["sqlite", "kafka"] = Field(
        default="sqlite", description="`sqlite`: files; `kafka`: the brokers of `bootstrap`"
    )
    bootstrap: str = Field(
        default="127.0.0.1:9092", description="Kafka brokers, `host:port,host:port`"
    )
    retention_days: Annotated[float, Field(gt=0)] = Field(
        default=14, description="how long the topics keep records; checked at start"
    )


class TableSettings(_Part):
    """What people query: products, price history, approvals, audit, cursors."""

    backend: Literal["sqlite", "postgres"] = Field(
        default="sqlite", description="`sqlite` or `postgres`"
    )
    url: str = Field(
        default="postgresql://postgres@127.0.0.1:5432/postgres",
        description="Postgres, without a password",
    )
    password_file: Path | None = Field(
        default=None, description="a file that holds Postgres' password"
    )


class SeriesSettings(_Part):
    """Points in time: decided prices, rivals' prices, stock, sales."""

    backend: Literal["sqlite", "questdb"] = Field(
        default="sqlite", description="`sqlite` or `questdb`"
    )
    url: str = Field(default="http://127.0.0.1:9000", description="QuestDB's HTTP address")
    user: str = Field(default="", description="QuestDB's `http.user`; empty: none")
    ttl_days: Annotated[int, Field(ge=0)] = Field(
        default=180, description="how long QuestDB keeps points; 0: for ever"
    )
    password_file: Path | None = Field(
        default=None, description="a file that holds `http.password`"
    )


class CacheSettings(_Part):
    """Short-lived values for others; nothing of ours reads it on the price path."""

    backend: Literal["memory", "redis"] = Field(default="memory", description="`memory` or `redis`")
    url: str = Field(default="redis://127.0.0.1:6379/0", description="Redis, without a password")
    password_file: Path | None = Field(
        default=None, description="a file that holds Redis' password"
    )
    ttl_s: Count = Field(default=3600, description="how long a price stays in the cache")


class BlobSettings(_Part):
    """Where model artefacts lie."""

    url: str = Field(
        default="", description="`s3://bucket/prefix`; empty: the folder `blobs` in `folder`"
    )
    endpoint: str = Field(
        default="", description="address of an S3-compatible server; empty: Amazon's"
    )
    region: str = Field(default="", description="the bucket's region")
    access_key_id: str = Field(
        default="", description="empty: the credentials of the machine, as Amazon's tools find them"
    )
    secret_key_file: Path | None = Field(
        default=None, description="a file that holds the secret of `access_key_id`"
    )


class ShardSettings(_Part):
    """How the work is cut. Count and spreads form a generation, which the log records."""

    count: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=2, description="shards, each a partition and a process of about 300 MB"
    )
    generation: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(
        default=1, description="number of this cut; a new one needs new topics"
    )
    spreads: dict[str, Annotated[int, Field(ge=1, le=SLOTS_MAX)]] = Field(
        default_factory=dict,
        description="retailer -> slots, for a retailer too big for one shard; others have 1",
    )
    clock: Literal["wall", "event"] = Field(
        default="wall", description="`event`: the largest event time consumed, to feed history"
    )
    standby: bool = Field(default=False, description="keep a warm successor of every shard")
    heartbeat_ms: Annotated[int, Field(ge=50, le=1000)] = Field(
        default=250, description="a mark is written at least this often"
    )
    interval_ms: Annotated[int, Field(ge=0, le=200)] = Field(
        default=5,
        description="least time between two microbatches, up to 30 where they take long; 0: none",
    )
    checkpoint_s: Annotated[float, Field(gt=0)] = Field(
        default=300,
        description="seconds between two checkpoints of a shard; a tenth where much was decided",
    )


def uneven_spreads(shards: ShardSettings) -> Iterator[str]:
    """Yield a warning for each retailer whose slots do not reach the shards evenly."""
    for retailer, spread in shards.spreads.items():
        shares = shares_of(retailer, spread, shards.count)
        wanted = min(spread, shards.count)
        if spread > 1 and max(shares) * wanted > EVEN_SHARE_MAX:
            owners = ", ".join(
                f"shard {shard} {share:.0%}" for shard, share in enumerate(shares) if share
            )
            yield (
                f"shards.spreads: {retailer}'s {spread} slots fall unevenly ({owners}); "
                f"{even_spread(retailer, shards.count)} slots would be even. Slots are fixed "
                "with the first start: a change needs a new generation"
            )


class TrainingSettings(_Part):
    """When models are trained by themselves; `repricer train` trains one at any time."""

    nightly_hour: Annotated[int, Field(ge=-1, le=23)] = Field(
        default=-1, description="hour (UTC) at which every learning retailer's is trained; -1: off"
    )
    days: Annotated[int, Field(ge=28, le=800)] = Field(
        default=180, description="days of history that a model is trained on"
    )
    promote: Literal["never", "canary"] = Field(
        default="canary", description="what becomes of a model trained by night"
    )


def forgotten_history(
    series: SeriesSettings, training: TrainingSettings, days: int | None = None
) -> Iterator[str]:
    """Yield a warning where training looks back on days that QuestDB has dropped by then.

    ``days`` is how far it shall look back, if not as far as the settings say.
    """
    kept, wanted = series.ttl_days, days or training.days
    if series.backend == "questdb" and 0 < kept < wanted:
        yield (
            f"training.days: a model shall be trained on {wanted} days, and series.ttl_days lets "
            f"QuestDB keep {kept}: the others are missing. Set series.ttl_days to {wanted} or "
            f"more, or training.days to {kept}"
        )


class SupervisorSettings(_Part):
    """When an owner is replaced."""

    silence_ms: Annotated[int, Field(ge=500)] = Field(
        default=2000,
        description="proven time without a mark after which an owner is replaced; 4, then 16 times "
        "as long where owners were ended for it on what it tries",
    )
    start_ms: Annotated[int, Field(ge=1000)] = Field(
        default=30_000,
        description="proven time a start has to seal, or to show progress; 4, then 16 times as "
        "long where starts were ended for showing none",
    )
    canary_ms: Annotated[int, Field(ge=50)] = Field(
        default=250, description="how often the canary is written"
    )
    canary_deadline_ms: Annotated[int, Field(ge=50)] = Field(
        default=500, description="a canary acknowledged later than this proves nothing"
    )
    backoff_ms_max: Annotated[int, Field(ge=0)] = Field(
        default=30_000, description="longest wait between two starts of one shard"
    )
    spare: bool = Field(
        default=True,
        description="keep a process warm that owns nothing yet, the next owner of any shard",
    )


class FollowerSettings(_Part):
    """How the followers carry decisions into the stores."""

    pace_ms: Annotated[int, Field(ge=0, le=5000)] = Field(
        default=200, description="a follower that keeps up writes at most this often, all at once"
    )
    history_pace_ms: Annotated[int, Field(ge=0, le=5000)] = Field(
        default=1000, description="the same of history: QuestDB merges each write into its tables"
    )


class GatewaySettings(_Part):
    """Where the HTTP API, the stream and the console listen."""

    host: str = Field(default="127.0.0.1", description="address to listen on; keep it on loopback")
    port: Port = Field(default=8080, description="0: any free port")
    keys_file: Path | None = Field(
        default=None, description="API keys; default `keys.json` in the folder"
    )


class RaySettings(_Part):
    """The Ray node that runs the shards' owners."""

    dashboard: bool = Field(default=True, description="serve Ray's dashboard on loopback, by token")
    dashboard_port: Port = Field(default=8265, description="0: any free port")
    folder: Path | None = Field(
        default=None, description="Ray's session files; a short path, by default below the system's"
    )


class TelemetrySettings(_Part):
    """Logs and metrics."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="of the logs"
    )
    json_logs: bool = Field(default=False, description="log as JSON on standard error too")


class Settings(BaseSettings):
    """Everything that can be set, resolved."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    folder: Path = Field(default=Path("repricer-data"), description="holds everything")
    log: LogSettings = LogSettings()
    tables: TableSettings = TableSettings()
    series: SeriesSettings = SeriesSettings()
    cache: CacheSettings = CacheSettings()
    blobs: BlobSettings = BlobSettings()
    shards: ShardSettings = ShardSettings()
    training: TrainingSettings = TrainingSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    followers: FollowerSettings = FollowerSettings()
    gateway: GatewaySettings = GatewaySettings()
    ray: RaySettings = RaySettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def run_folder(self) -> Path:
        """Return where processes leave their pids, addresses and ends."""
        return self.folder / "run"

    @property
    def keys_file(self) -> Path:
        """Return the file of API keys."""
        return self.gateway.keys_file or self.folder / "keys.json"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take flags, then the environment, then the file; no .env, no secrets folder."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Resolve the settings of all four sources.

    Args:
        flags: nested values, such as ``{"shards": {"count": 4}}``; the strongest source.
        file: the settings file; by default ``REPRICER_CONFIG``, else ``repricer.toml`` when there.
        environment: only to look for misspelt variables and the file; values come from the process.

    Raises:
        RejectedInput: an unknown key, with the nearest known one, or a value out of its range.
    """
    environment = os.environ if environment is None else environment
    path = settings_file(file, environment)
    _refuse_unknown_variables(environment)

    class Located(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        located = Located(**dict(flags or {}))
    except ValidationError as error:
        raise _rejected(error, path) from None
    except SettingsError as error:
        raise RejectedInput(
            "/", str(error), "a variable of the environment is no valid value"
        ) from None
    except ValueError as error:  # tomllib.TOMLDecodeError
        raise RejectedInput(
            "/", f"{path} is no valid TOML: {error}", "mend the line named"
        ) from None
    settings = Settings.model_construct(
        **{name: getattr(located, name) for name in Settings.model_fields}
    )
    return settings.model_copy(update={"folder": settings.folder.expanduser().absolute()})


def settings_file(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Return the settings file that applies, or ``None``.

    Raises:
        RejectedInput: a file was named and is not there.
    """
    named = file or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise RejectedInput("/config", f"there is no file {named}", "name one that exists")
        return named
    return Path(FILE_NAME) if Path(FILE_NAME).is_file() else None


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Any]:
    """Return every key that can be set, dotted, with its field."""
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, _Part):
            keys |= known_keys(kind, f"{prefix}{name}.")
        else:
            keys[prefix + name] = field
    return keys


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted keys; a table whose keys are data stays whole."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and f"{prefix}{name}" not in known_keys():
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def origins(settings: Settings, flags: Mapping[str, Any], file: Path | None) -> dict[str, str]:
    """Return for every key where its value came from: flag, environment, file or default."""
    import tomllib

    path = settings_file(file, os.environ)
    in_file = flatten(tomllib.loads(path.read_text())) if path else {}
    in_flags = flatten(flags)
    found = {}
    for key in known_keys():
        variable = PREFIX + key.replace(".", "__").upper()
        if key in in_flags:
            found[key] = "flag"
        elif any(name.upper() == variable for name in os.environ):
            found[key] = variable
        else:
            found[key] = str(path) if key in in_file else "default"
    return found


def read_secret(file: Path | None) -> str | None:
    """Return the one line a secret's file holds.

    Raises:
        RejectedInput: the file is missing or readable by others.
    """
    if file is None:
        return None
    try:
        mode = file.stat().st_mode
        text = file.read_text().strip()
    except OSError as error:
        raise RejectedInput(
            "/password_file", f"{file}: {error.strerror}", "name a readable file"
        ) from None
    if mode & 0o077:
        raise RejectedInput("/password_file", f"{file} is open to others", f"chmod 600 {file}")
    return text


def suggestion(key: str) -> str:
    """Return a sentence that names the known key nearest to ``key``."""
    known = [*known_keys(), *(key.rpartition(".")[0] for key in known_keys() if "." in key)]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if not near:
        leaf = key.rpartition(".")[2]
        near = [name for name in known if name.rpartition(".")[2] == leaf]
    return f"did you mean `{near[0]}`?" if near else "`repricer config show` lists what can be set"


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {PREFIX + key.replace(".", "__").upper(): key for key in known_keys()}
    known |= {PREFIX + name.upper(): name for name in Settings.model_fields}
    for name in environment:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper in OTHER_VARIABLES:
            continue
        if upper.startswith(TEST_PREFIX):
            continue
        if any(upper.startswith(f"{variable}__") for variable in _tables(known)):
            continue
        near = difflib.get_close_matches(upper, known, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]}?" if near else "unset it"
        raise RejectedInput(f"/{name}", "no setting has this name", fix)


OTHER_VARIABLES = frozenset({FILE_VARIABLE, "REPRICER_TREE"})
"""Names with our prefix that are no settings; so are those that begin with TEST_PREFIX."""

TEST_PREFIX = "REPRICER_TEST_"


def _tables(known: Mapping[str, str]) -> list[str]:
    """Return the variables whose tables have keys that are data, such as retailers."""
    return [variable for variable, key in known.items() if key == "shards.spreads"]


def _rejected(error: ValidationError, path: Path | None) -> RejectedInput:
    first = error.errors()[0]
    key = ".".join(str(step) for step in first["loc"])
    pointer = "/" + key.replace(".", "/")
    where = f" (from {path}, the environment or a flag)" if path else ""
    if first["type"] == "extra_forbidden":
        return RejectedInput(pointer, f"no setting has this name{where}", suggestion(key))
    return RejectedInput(
        pointer, f"{first['msg'].lower()}, got {first['input']!r}{where}", "give a value in range"
    )
