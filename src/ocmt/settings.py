"""Every setting, typed, with its source. Read only by `bootstrap` and `cli`; rooms get values, not settings.

Sources, strongest first: command line, environment (`OCMT_*`, and the customary `DATABASE_URL`,
`ANTHROPIC_API_KEY`), `ocmt.toml` in the data folder, the defaults below.

Every text that comes from a source is trimmed, and an empty one means the default: files and secret managers
leave line breaks behind what they hold. What has a form (addresses, keys, networks) is checked here, so that
a mistyped value is refused at the start by its name rather than at its first use.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from datetime import timedelta
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from platformdirs import user_cache_path, user_data_path
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from ocmt.errors import SetupProblem

_BLANKS = " \t\r\n\v\f\u00a0\u2028\u2029\ufeff"
"""What is trimmed: white space, and the byte order mark that some editors put before a file's text."""
_LONGEST_SECONDS = 100 * 365 * 86400.0
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> object:
    """`90s`, `30m`, `4h`, `1h30m` or a plain number of seconds → timedelta. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return _seconds(float(text))
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h|d))+", text):
        raise ValueError("write a duration like 90s, 30m or 4h")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    return _seconds(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _seconds(number: float) -> timedelta:
    if number > _LONGEST_SECONDS:
        raise ValueError("write a duration of at most 100 years")
    return timedelta(seconds=number)


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]


def clean(value: object) -> object:
    """Return a text without the blanks and the pair of quotation marks around it; other values as they are.

    Raises: ValueError for a text with a line break or another control character in it.
    """
    if not isinstance(value, str):
        return value
    text = value.strip(_BLANKS)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip(_BLANKS)  # as in the file of a container's environment, which has no quotes
    if any(character < " " or character == "\x7f" for character in text):
        raise ValueError("remove the line break or control character in it")
    return text


def _words(value: object) -> object:
    """`a, b` → ("a", "b")."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _alias(*names: str) -> Any:
    return AliasChoices(*names)


class OidcProvider(BaseModel):
    """One provider that people can sign in by."""

    model_config = ConfigDict(extra="forbid")

    _cleaned = field_validator("*", mode="before")(clean)

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


_ADDRESSES = {
    "docker_url": (("unix", "tcp", "http", "https"), "unix:///var/run/docker.sock"),
    "smtp_url": (("smtp", "smtps"), "smtp://user:password@host:587"),
    "database_url": (("postgresql", "postgres"), "postgresql://user:password@host:5432/database"),
}
_POSITIVE = (
    "agent_pause_after",
    "agent_stop_after",
    "agent_max_awake",
    "snapshot_every",
    "wake_timeout",
    "turn_timeout",
)


def check_address(url: str, schemes: tuple[str, ...], example: str) -> None:
    """Raise ValueError for what is no address of one of these schemes. The words never quote the address."""
    try:
        parts = urlsplit(url)
        # A database may have several hosts: postgresql://user:password@first:5432,second:5432/database.
        several = "postgresql" in schemes
        for host in parts.netloc.rpartition("@")[2].split(",") if several else [parts.netloc]:
            _ = urlsplit(f"//{host}").port
        # A password with a plain / or # in it ends the host too early: the rest shows in path and fragment.
        whole = not parts.fragment and "@" not in parts.path
        fits = parts.scheme in schemes and whole and bool(parts.netloc or parts.path or parts.query)
    except ValueError:
        fits = False
    if not fits or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ValueError(f"write it like {example}, and percent-encode @, / and : in a password")
    if "smtp" in parts.scheme and not parts.hostname:
        raise ValueError(f"write it like {example}")


def checked_web_address(url: str) -> str:
    """Return an http or https address without the slashes at its end. Raises: ValueError."""
    check_address(url, ("http", "https"), "https://host.example.org")
    parts = urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise ValueError("write scheme and host, like https://host.example.org, without user, ? or #")
    return url.rstrip("/")


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="OCMT_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        populate_by_name=True,
    )

    data_dir: Path = Field(default_factory=lambda: user_data_path("ocmt"))
    """Everything that must be kept: the database, the secrets, the objects, the agents' files."""
    cache_dir: Path = Field(default_factory=lambda: user_cache_path("ocmt"))
    """What `make setup` can make again: Node, OpenClaw, PostgreSQL, bubblewrap."""
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    public_url: str | None = None
    """What users type; default `http://localhost:PORT`."""
    agent_url: str | None = None
    """A host name of its own for what agents show: OpenClaw's pages and `/agent/gateway`."""
    behind_proxy: bool = False
    """Only a proxy or a port mapping on this machine reaches `host`, although `public_url` is a loopback
    address. Without it such a combination is refused at the start."""
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
    agent_job_awake: Duration = timedelta(hours=4)
    """For so long after its last use a program that an agent has left running keeps it awake."""
    agent_page_out_after: Duration = timedelta(seconds=60)
    """Paused for so long an agent's memory goes to swap, where this machine has some and we are root."""
    agent_wake_ahead: Duration = timedelta(seconds=20)
    """So long before a job of its own is due a stopped agent is woken; slow machines need more."""
    snapshot_every: Duration = timedelta(minutes=5)
    """So long after the last time the files of an agent at work are saved again, between its turns."""
    agent_memory: int = Field(default=2 * 1024**3, gt=0)
    """Bytes of memory that one agent may use, where its plan does not say and the runtime can limit it."""
    agent_disk: int = Field(default=8 * 1024**3, gt=0)
    """Bytes that one agent's files may take on the disk; beyond that it is stopped."""
    disk_floor: int | None = Field(default=None, ge=0)
    """Free bytes of the data folder's disk below which nothing new is taken and agents are held; 0: no floor.
    Default: 5 % of the disk, at most 2 GiB."""
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
    egress: Literal["off", "opt-in", "on"] = "off"
    """Who reaches the internet through the platform's proxy, where a plan does not say: no agent, those whose
    users have switched it on, every agent."""
    egress_daily_bytes: int = Field(default=2 * 1024**3, ge=0)
    """Bytes that one agent may exchange with the internet in a day (UTC)."""
    egress_ports: Annotated[tuple[int, ...], NoDecode, BeforeValidator(_words)] = (80, 443)
    """Ports that agents may connect to on the internet, with commas between them; never 25."""

    anthropic_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=_alias("ANTHROPIC_API_KEY", "OCMT_ANTHROPIC_API_KEY", "anthropic_api_key"),
    )
    anthropic_url: str = "https://api.anthropic.com"
    openai_url: str = "https://api.openai.com"
    model: str = "claude-sonnet-4-6"
    models: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ()
    """Models that the installation's own key may be used for, with commas between them; not said: `model`."""
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
        given = init_settings().get("data_dir") or env_settings().get("data_dir")
        chosen = given.strip(_BLANKS) if isinstance(given, str) else given
        file = TomlConfigSettingsSource(
            settings_cls, Path(chosen or user_data_path("ocmt")).expanduser() / "ocmt.toml"
        )
        return init_settings, env_settings, file

    @field_validator("*", mode="before")
    @classmethod
    def _cleaned(cls, value: object, info: ValidationInfo) -> object:
        text = clean(value)
        if text == "":
            return cls.model_fields[info.field_name or ""].get_default(call_default_factory=True)
        return text

    @field_validator(
        "public_url", "agent_url", "anthropic_url", "openai_url", "telegram_url", "slack_url", "github_url"
    )
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        return None if url is None else checked_web_address(url)

    @field_validator("docker_url", "smtp_url", "database_url")
    @classmethod
    def _other_address(cls, given: Any, info: ValidationInfo) -> Any:
        if given is not None:
            url = given.get_secret_value() if isinstance(given, SecretStr) else given
            check_address(url, *_ADDRESSES[info.field_name or ""])
        return given

    @field_validator("anthropic_api_key")
    @classmethod
    def _header_value(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,4096}", key.get_secret_value()):
            raise ValueError("a key has printable ASCII characters only, and no blanks")
        return key

    @field_validator("mail_from")
    @classmethod
    def _mail_address(cls, sender: str) -> str:
        if not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", parseaddr(sender)[1]):
            raise ValueError("write it like OCMT <ocmt@example.org>")
        return sender

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise ValueError(f"{proxy!r} is no address or network: write it like 10.0.0.0/8") from None
        return proxies

    @field_validator("model", "agent_image")
    @classmethod
    def _name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,255}", name):
            raise ValueError("a name has letters, digits, and ._:/@- only")
        return name

    @field_validator("host")
    @classmethod
    def _host(cls, host: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", host):
            raise ValueError("write an IP address, such as 127.0.0.1 or ::, or localhost")
        return host

    @field_validator(*_POSITIVE)
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if value <= timedelta():
            raise ValueError("write a duration above zero")
        return value

    @field_validator("data_dir", "cache_dir", "ui_dir")
    @classmethod
    def _at_home(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path is not None else None

    @field_validator("anthropic_url", "openai_url")
    @classmethod
    def _base(cls, url: str) -> str:
        return url.removesuffix("/v1").rstrip("/")  # every path that is asked for begins with it

    @field_validator("egress_ports")
    @classmethod
    def _ports(cls, ports: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 0 < port < 65536 for port in ports):
            raise ValueError("a port is a number from 1 to 65535")
        return ports

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
        raise SetupProblem(_words_for(error)) from None  # its own text quotes the values
    except SettingsError as error:
        raise SetupProblem(f"A setting is wrong: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise SetupProblem(f"ocmt.toml in the data folder is not valid TOML: {error}.") from error
    except UnicodeDecodeError as error:
        raise SetupProblem("ocmt.toml in the data folder is not UTF-8 text. Save it as UTF-8.") from error
    except OSError as error:
        raise SetupProblem(
            f"ocmt.toml in the data folder cannot be read ({error.strerror}). Correct its owner or mode."
        ) from error


def _words_for(error: ValidationError) -> str:
    """Return one line about the first setting that is wrong: its name, what is wrong, and how to write it."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    known = path[0].lower() if path[0].lower() in Settings.model_fields else None
    if first["type"] == "extra_forbidden" and known is None:
        return f"There is no setting {'.'.join(path)}: `ocmt doctor --settings` shows all of them."
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    name, variable = ".".join(path), _variable(path)
    named = name if name == variable else f"{name} ({variable})"
    return f"The setting {named} is wrong: {reason}."


def _variable(path: list[str]) -> str:
    """Return the environment variable of a setting."""
    if path[0].isupper():
        return path[0]
    field = Settings.model_fields.get(path[0])
    if field is not None and isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0])
    return "OCMT_" + "__".join(path).upper()
