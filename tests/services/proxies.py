"""Real reverse proxies as processes of a test, with the very configuration that docs/how-to/tls.md prints.

Only names, ports and paths are replaced, as the page tells its readers to do. What surrounds the block (where
logs and sockets go) is what a distribution's own configuration would say.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "tls.md"
NAME = "ocmt.example.org"
AGENTS_NAME = "openclaw.example.net"
SECONDS = 20.0
"""In which a proxy has to answer, and has to end."""
MODULES = Path("/usr/lib/apache2/modules")


def find(program: str) -> str | None:
    """Return the path of a proxy's program; servers are not on an ordinary user's PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def block(containing: str) -> str:
    """Return the page's first fenced block with these words in it."""
    blocks: list[str] = re.findall(r"^```\w*\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return next(text for text in blocks if containing in text)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """Return the block with each part replaced. Fails if the page no longer has it."""
    for old, new in pairs:
        assert old in text, f"the page no longer says {old!r}"
        text = text.replace(old, new)
    return text


class Certificate:
    """A certificate for both names that signs itself."""

    def __init__(self, folder: Path) -> None:
        self.pem, self.key = folder / "ocmt.pem", folder / "ocmt.key"
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
        now = datetime.now(UTC)
        signed = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(NAME), x509.DNSName(AGENTS_NAME)]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.pem.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def trusting(self, *protocols: str) -> ssl.SSLContext:
        """Return a client's context that trusts it."""
        context = ssl.create_default_context(cafile=str(self.pem))
        context.set_alpn_protocols(list(protocols or ("http/1.1",)))
        return context


Arrange = Callable[[Path, int, int, Certificate], tuple[str, list[str]]]
"""Folder, the proxy's port, OCMT's port, certificate → configuration and arguments of the program."""


def nginx(folder: Path, port: int, upstream: int, certificate: Certificate) -> tuple[str, list[str]]:
    """Arrange nginx: the block goes into the `http` part of its configuration."""
    text = replaced(
        block("map $http_upgrade"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        (f"server_name {NAME};", f"server_name {NAME} {AGENTS_NAME};"),
        ("/etc/ssl/ocmt.pem", str(certificate.pem)),
        ("/etc/ssl/ocmt.key", str(certificate.key)),
        ("http://127.0.0.1:8080", f"http://127.0.0.1:{upstream}"),
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    whole = (
        f"{user}\ndaemon off; pid {folder}/pid; error_log {folder}/log; worker_processes 1;\n"
        f"events {{}}\nhttp {{\naccess_log off; gzip on;\n{paths}\n{text}\n}}\n"
    )
    return whole, ["-c", str(folder / "conf"), "-e", str(folder / "log"), "-p", str(folder)]


def apache2(folder: Path, port: int, upstream: int, certificate: Certificate) -> tuple[str, list[str]]:
    """Arrange Apache with the modules that the page enables, and those that Debian enables by itself."""
    enabled = re.findall(r"^a2enmod (.*)$", PAGE.read_text(), re.MULTILINE)[0].split()
    debians = ["mpm_event", "authz_core", "socache_shmcb", "mime", "reqtimeout", "deflate", "filter", "env"]
    loads = "\n".join(
        f"LoadModule {name}_module {MODULES}/mod_{name}.so"
        for name in (*debians, *sorted(enabled, key=lambda name: (name != "proxy", name)))
    )
    text = replaced(
        block("<VirtualHost"),
        ("<VirtualHost *:443>", f"<VirtualHost *:{port}>"),
        (f"ServerName {NAME}", f"ServerName {NAME}\n    ServerAlias {AGENTS_NAME}"),
        ("/etc/ssl/ocmt.pem", str(certificate.pem)),
        ("/etc/ssl/ocmt.key", str(certificate.key)),
        ("http://127.0.0.1:8080", f"http://127.0.0.1:{upstream}"),
    )
    as_whom = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    whole = (
        f"ServerRoot {folder}\nPidFile {folder}/pid\nErrorLog {folder}/log\nDefaultRuntimeDir {folder}\n"
        f"ServerName localhost\n{loads}\n{as_whom}\nTypesConfig /etc/mime.types\n"
        "RequestReadTimeout header=20-40,minrate=500 body=10,minrate=500\n"
        "AddOutputFilterByType DEFLATE text/html text/css application/javascript application/json\n"
        f"Listen 127.0.0.1:{port}\n{text}\n"
    )
    if not Path("/etc/mime.types").exists():
        whole = whole.replace("/etc/mime.types", "/dev/null")
    return whole, ["-f", str(folder / "conf"), "-D", "FOREGROUND"]


def caddy(folder: Path, port: int, upstream: int, certificate: Certificate) -> tuple[str, list[str]]:
    """Arrange Caddy: the block begins as the page says for a certificate of one's own and another port."""
    beginning = replaced(
        block("tls /etc/ssl/ocmt.pem"),
        (f"https://{NAME}:8443", f"https://{NAME}:{port}, https://{AGENTS_NAME}:{port}"),
        ("/etc/ssl/ocmt.pem", str(certificate.pem)),
        ("/etc/ssl/ocmt.key", str(certificate.key)),
    )
    text = replaced(
        block("reverse_proxy"), (f"{NAME} {{\n", beginning), ("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    )
    options = "admin off\n auto_https disable_redirects\n default_bind 127.0.0.1\n storage file_system"
    text = f"{{\n {options} {folder}\n}}\n{text}"
    return text, ["run", "--adapter", "caddyfile", "--config", str(folder / "conf")]


PROXIES: dict[str, Arrange] = {"nginx": nginx, "apache2": apache2, "caddy": caddy}


@asynccontextmanager
async def running(
    program: str, name: str, folder: Path, port: int, upstream: int, certificate: Certificate
) -> AsyncIterator[None]:
    """The proxy with that name, answering on that port until the block ends."""
    text, arguments = PROXIES[name](folder, port, upstream, certificate)
    (folder / "conf").write_text(text)
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            env={
                "PATH": os.defpath,
                "HOME": str(folder),
                "XDG_DATA_HOME": str(folder),
                "XDG_CONFIG_HOME": str(folder),
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def said() -> str:
        logs = [folder / "output", folder / "log"]
        return "\n".join(log.read_text(errors="replace") for log in logs if log.exists())

    try:
        async with asyncio.timeout(SECONDS):
            while True:
                assert process.returncode is None, f"{name} ended: {said()}"
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        print(said())  # shown where a test failed


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
