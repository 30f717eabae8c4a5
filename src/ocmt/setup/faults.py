"""From the output of a failed tool (uv, npm, pip, vite) to what a person can do about it. Pure."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from typing import NamedTuple


class Fault(NamedTuple):
    """A kind of failure: how to recognise it, and the words for it."""

    pattern: re.Pattern[str]
    words: str


def _fault(pattern: str, words: str) -> Fault:
    return Fault(re.compile(pattern, re.IGNORECASE), words)


# The first that matches wins: a full disk also breaks downloads, a proxy also refuses connections.
FAULTS: Sequence[Fault] = (
    _fault(
        r"ENOSPC|No space left on device|disk quota exceeded|EDQUOT",
        "The disk is full. Make room (about 2 GB in all), or put the cache elsewhere: OCMT_CACHE_DIR.",
    ),
    _fault(
        r"Proxy Authentication Required|\b407\b|tunneling socket|proxy.*(connect|refused|resolve)|EPROXY",
        "The proxy refused the connection. Check HTTPS_PROXY (and NO_PROXY).",
    ),
    _fault(
        r"certificate verify failed|UnknownIssuer|SELF_SIGNED_CERT|self[- ]signed certificate"
        r"|invalid peer certificate|UNABLE_TO_(GET_ISSUER_CERT|VERIFY_LEAF)",
        "The registry's certificate is not one that this machine trusts. Behind a company's proxy set "
        "SSL_CERT_FILE to the company's certificates; else check this machine's clock.",
    ),
    _fault(
        r"EINTEGRITY|hash mismatch|Hashes? (do not|don't) match|checksum",
        "What was downloaded is not what the lock file names. "
        "Try again; if it stays so, a proxy or mirror alters downloads.",
    ),
    _fault(
        r"\bE401\b|\bE403\b|401 Unauthorized|403 Forbidden|Unauthorized",
        "The registry refused access. Check the credentials of your mirror (pip.conf, .npmrc) or unset it.",
    ),
    _fault(
        r"ENOTFOUND|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ERR_SOCKET_TIMEOUT"
        r"|network (is )?unreachable|name resolution|dns error|failed to lookup address"
        r"|Name or service not known|Connection refused|connection reset|timed out"
        r"|error sending request|Failed to fetch",
        "The registry cannot be reached. Check the network (and HTTPS_PROXY, if you need one), "
        "then run the same again.",
    ),
    _fault(
        r"EACCES|EPERM|EROFS|Permission denied|Read-only file system|Operation not permitted",
        "A folder cannot be written. Check who owns the clone and the cache folders "
        "(~/.cache/ocmt, ~/.cache/uv, ~/.npm); a set-up once run with sudo leaves them to root.",
    ),
    _fault(
        r"No solution found|ETARGET|E404|No matching distribution|not find a version|no (matching )?wheels? ",
        "The registry does not have the version that the lock file names. "
        "If you use a mirror, check that it is up to date.",
    ),
    _fault(
        r"heap out of memory|Cannot allocate memory|ENOMEM|signal 9|SIGKILL",
        "The machine ran out of memory. Close something, or add swap, then run the same again.",
    ),
)

_UNKNOWN = "Run the same again; if it fails in the same way, the log says more."


def advice(output: str) -> str:
    """One or two plain sentences on what to do about a tool's failure, from what it printed."""
    return next((fault.words for fault in FAULTS if fault.pattern.search(output)), _UNKNOWN)


def advice_for(error: OSError) -> str:
    """The same for an error of the operating system that happened in our own hands."""
    name = errno.errorcode.get(error.errno or 0, "")
    return advice(f"{name} {error.strerror or error}")
