"""Every setting, typed, with its source. Read only by `bootstrap` and `cli`; rooms get values, not settings.

Sources, strongest first: command line, environment (`OCMT_*`, and the customary `DATABASE_URL`,
`ANTHROPIC_API_KEY`), `ocmt.toml` in the data folder, the defaults below.
"""

from __future__ import annotations

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ocmt.errors import SetupProblem

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> object:
    """`90s`, `30m`, `4h`, `1h30m` or a plain number of seconds → timedelta. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return timedelta(seconds=float(text))
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h|d))+", text):
        raise ValueError("write a duration like 90s, 30m or 4h")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]


def _words(value: object) -> object:
    """`a, b` → ("a", "b")."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _alias(*names: str) -> Any:
    return AliasChoices(*names)


class OidcProvider(BaseModel):
    """One provider that people can sign in by."""

    model_config = ConfigDict(extra="forbid")

    client_id: str | None = None
    client_secret: SecretStr | None = None
    issuer: str | None = None
    """Its address; `google` and `github` have their own."""
    label: str | None = None
    """What the button says."""
    trusted_domains: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ()
    """Of their addresses what this provider says is true, and opens accounts that are in use."""

    def plain(self) -> dict[str, Any]:
        """The values, the secret as it is."""
        secret = self.client_secret.get_secret_value() if self.client_secret else None
        return {**self.model_dump(), "client_secret": secret}


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="OCMT_", env_nested_delimiter="__", extra="forbid", populate_by_name=True
    )

    data_dir: Path = Field(default_factory=lambda: user_data_path("ocmt"))
    """Everything that must be kept: the database, the secrets, the objects, the agents' files."""
    cache_dir: Path = Field(default_factory=lambda: user_cache_path("ocmt"))
    """What `make setup` can make again: Node, OpenClaw, PostgreSQL, bubblewrap."""
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    public_url: str | None = None
    """What users type; default `http://localhost:PORT`."""
    ui_dir: Path | None = None
    database_url: SecretStr | None = Field(
        default=None, validation_alias=_alias("DATABASE_URL", "OCMT_DATABASE_URL", "database_url")
    )
    database_pool: int = Field(default=10, ge=2)

    runtime: Literal["sandbox", "docker", "process"] = "sandbox"
    docker_url: str = Field(
        default="unix:///var/run/docker.sock",
        validation_alias=_alias("OCMT_DOCKER_URL", "DOCKER_HOST", "docker_url"),
    )
    """Of the runtime docker: the socket of Docker or podman on this machine."""
    agent_image: str = "ocmt-agent"
    """Of the runtime docker: the image that agents run, built from agent/Dockerfile."""
    agent_pause_after: Duration = timedelta(minutes=30)
    agent_stop_after: Duration = timedelta(hours=4)
    agent_max_awake: Duration = timedelta(hours=24)
    """Awake for so long without a pause an agent is stopped between two turns, whatever else holds it."""
    agent_page_out_after: Duration = timedelta(seconds=60)
    """Paused for so long an agent's memory goes to swap, where this machine has some and we are root."""
    agent_wake_ahead: Duration = timedelta(seconds=20)
    """So long before a job of its own is due a stopped agent is woken; slow machines need more."""
    snapshot_every: Duration = timedelta(minutes=5)
    """So long after the last time the files of an agent at work are saved again, between its turns."""
    agent_memory: int = 2 * 1024**3
    """Bytes of memory that one agent may use, where its plan does not say and the runtime can limit it."""
    agent_disk: int = Field(default=8 * 1024**3, gt=0)
    """Bytes that one agent's files may take on the disk; beyond that it is stopped."""
    keep_conversations: int = Field(default=5_000, gt=0)
    """So many conversations of one user are kept, where the plan does not say; likewise the next four."""
    keep_conversation_bytes: int = Field(default=512 * 1024**2, gt=0)
    """Bytes of the messages, answers and events of one user."""
    keep_delivery_bytes: int = Field(default=256 * 1024**2, gt=0)
    """Bytes of the webhooks that one user's channels received, and of the answers that they owe."""
    keep_attachment_bytes: int = Field(default=1024**3, gt=0)
    """Bytes of the files that one user has sent with messages."""
    keep_snapshot_bytes: int | None = Field(default=None, gt=0)
    """Bytes of all snapshots of one agent together; default twice what one snapshot may have."""
    agents_memory: int | None = Field(default=None, gt=0)
    """Bytes for all awake agents of this machine together; default three quarters of its memory."""
    warm_spares: int = Field(default=0, ge=0, le=16)
    """Sandboxes that wait with OpenClaw loaded, for quicker wakes: 1.7 GB each; runtime sandbox, as root."""
    wake_timeout: Duration = timedelta(seconds=120)
    turn_timeout: Duration = timedelta(minutes=15)
    credentials: Literal["broker", "inject"] = "broker"

    anthropic_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=_alias("ANTHROPIC_API_KEY", "OCMT_ANTHROPIC_API_KEY", "anthropic_api_key"),
    )
    anthropic_url: str = "https://api.anthropic.com"
    openai_url: str = "https://api.openai.com"
    model: str = "claude-sonnet-4-6"
    demo_model: bool = False
    """Answer from the demo model even where a key is at hand."""
    turn_call_limit: int = Field(default=50, ge=1)
    daily_token_limit: int = Field(default=5_000_000, ge=0)
    """Tokens (input and output) that one user may use per day (UTC)."""

    telegram_url: str = "https://api.telegram.org"
    """Where the API of this channel is; likewise the next two."""
    slack_url: str = "https://slack.com/api"
    github_url: str = "https://api.github.com"

    sign_up: Literal["invitation", "allowlist", "approval", "open"] = "invitation"
    """Who may make an account by signing in: whom an administrator added or invited; also whom
    `sign_up_allowed` or a rule of an administrator's names; everybody, to be approved; everybody."""
    sign_up_allowed: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ()
    """Addresses and domains, with commas between them: `ada@example.org, example.com`."""
    mfa_for_admins: bool = False
    """Administrators must have a second factor."""
    audit_keep: Duration | None = None
    """How long the audit log is kept, a day at least; not said: for ever."""
    oidc: dict[str, OidcProvider] = {}
    """Other ways to sign in, by name: `OCMT_OIDC__GOOGLE__CLIENT_ID`, or `[oidc.google]` in the file."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ()
    """Addresses and networks of the proxies in front of us, whose X-Forwarded-For is believed."""

    smtp_url: SecretStr | None = None
    """`smtp://user:password@host:587` (STARTTLS) or `smtps://…`; without it mails go to the local outbox."""
    mail_from: str = "OCMT <ocmt@localhost>"
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then `ocmt.toml` of the data folder that the first two name."""
        chosen = init_settings().get("data_dir") or env_settings().get("data_dir") or user_data_path("ocmt")
        file = TomlConfigSettingsSource(settings_cls, Path(chosen).expanduser() / "ocmt.toml")
        return init_settings, env_settings, file

    @field_validator("data_dir", "cache_dir", "ui_dir")
    @classmethod
    def _at_home(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path is not None else None

    @field_validator("audit_keep")
    @classmethod
    def _a_day_at_least(cls, keep: timedelta | None) -> timedelta | None:
        if keep is not None and keep < timedelta(days=1):
            raise ValueError("keep the audit log for a day at least: write it like 365d")
        return keep

    @property
    def url(self) -> str:
        """The public address, without a slash at its end."""
        return (self.public_url or f"http://localhost:{self.port}").rstrip("/")


def load_settings(**given: Any) -> Settings:
    """Settings from all sources; `given` are the command line's, None meaning not given.

    Raises: SetupProblem with one line that names the setting and what is wrong with it.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SetupProblem(f"The setting {name} is wrong: {first['msg']}.") from error
    except tomllib.TOMLDecodeError as error:
        raise SetupProblem(f"ocmt.toml in the data folder is not valid TOML: {error}.") from error
