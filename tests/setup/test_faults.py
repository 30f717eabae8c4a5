"""What people are told when a tool of the set-up fails."""

import errno

import pytest

from ocmt.setup.faults import advice, advice_for


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("npm error code ENOSPC\nnpm error nospc There appears to be insufficient space", "disk is full"),
        ("error: failed to write: No space left on device (os error 28)", "disk is full"),
        (
            "npm error code ENOTFOUND\nnpm error network request to https://registry.npmjs.org failed",
            "cannot be reached",
        ),
        (
            "error: Request failed after 3 retries\n  Caused by: dns error: failed to lookup address",
            "cannot be reached",
        ),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", "cannot be reached"),
        ("Tunnel connection failed: 407 Proxy Authentication Required", "proxy refused"),
        ("invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
        ("npm error code SELF_SIGNED_CERT_IN_CHAIN", "SSL_CERT_FILE"),
        ("npm error code EACCES\nnpm error syscall mkdir", "cannot be written"),
        ("npm error code EINTEGRITY", "not what the lock file names"),
        ("npm error code ETARGET\nnpm error notarget No matching version found", "does not have the version"),
        ("HTTP status client error (401 Unauthorized)", "refused access"),
        (
            "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
            "out of memory",
        ),
        ("something that nobody has seen before", "the log says more"),
    ],
)
def test_the_advice_fits_the_failure(output: str, words: str) -> None:
    assert words in advice(output)


def test_a_full_disk_is_named_before_the_network_that_it_breaks() -> None:
    assert "disk is full" in advice("Failed to fetch: connection reset\nNo space left on device")


def test_our_own_errors_get_the_same_words() -> None:
    assert "disk is full" in advice_for(OSError(errno.ENOSPC, "No space left on device"))
    assert "cannot be written" in advice_for(PermissionError(errno.EACCES, "Permission denied"))
