"""The small program beside OpenClaw inside the sandbox: it starts the gateway, hands sockets out, stops it.

It runs as `python -I -S main.py CONTROL`, imports the standard library only and talks to the platform over a
SOCK_SEQPACKET socket: one JSON object a message, at most one file descriptor with it. CONTROL is the number
of an inherited descriptor or, in a container, the path at which the platform waits for one to call. Until the
gateway runs nothing untrusted has run here; that is why the listeners are made, handed over and closed before
that. It stays out of the agent's reach (no ptrace, no /proc/PID/fd) by not being dumpable. When the platform
goes away, or when the gateway ends, it ends too, and the sandbox's process namespace with it.

A warm spare is a supervisor that is told {"op": "warm", "command", "environment"} first: it has that program
load what the gateway will load (`spare.mjs`), says {"event": "warm"}, and at the start hands the environment
over to it instead of starting anew, with a second hello to whoever is its platform's agent then.

Platform → supervisor: {"op": "start", "command", "environment", "directory", "port", "listen": {name: port},
"processes", "largest"?, "filter"?, "lease"?} + the pipe for all output where none was inherited ·
{"op": "dial", "id"} · {"op": "stop", "grace"} · {"op": "lease", "until"}: the gateway may run until then (the
machine's monotonic clock); without a further one it is killed then, because another replica may be about to
start this agent.
Supervisor → platform: {"event": "hello", "protocol", "hardened"} · {"event": "listener", "name"} + fd ·
{"event": "spawned"} · {"event": "listening"} · {"event": "connected", "id"} + fd ·
{"event": "refused", "id"} · {"event": "exited", "code"} · {"event": "failed", "message"}.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
import time

PROTOCOL = 1
"""Raised with every change of the messages: an image may be older than the platform, or newer."""
MAX_MESSAGE = 64 * 1024
POLL_SECONDS = 0.02
"""Between two attempts to connect, while somebody waits for a connection."""
LOOK_SECONDS = 0.25
"""Between two looks whether the gateway listens, while nobody does: a look costs 1.4 ms of processor time."""
DIAL_SECONDS = 0.5
"""How long a dial waits here for the gateway to listen before the platform is told to ask again."""
CALL_SECONDS = 10.0
TAKE_SECONDS = 3.0
"""In which a warm spare must take over; it takes milliseconds."""
RLIMIT_FSIZE, RLIMIT_NPROC = 1, 6
"""As in Linux's headers: importing `resource` costs every wake 2 ms, and most need it once."""
PROCESS_LIMIT_KERNEL = (5, 14)
"""From here on RLIMIT_NPROC counts per user namespace; before, per host user."""


def main() -> int:
    """Serve the platform on the control channel named by the first argument until the gateway has ended."""
    control = _control(sys.argv[1])
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib would cost 5 ms of every wake
        number = int(name)
        if number > 2 and number != control.fileno():
            _keep_from_children(number)
    control.set_inheritable(False)
    return Supervisor(control).run()


def _control(name: str) -> socket.socket:
    if name.isdigit():
        return socket.socket(fileno=int(name))
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.settimeout(CALL_SECONDS)
    control.connect(name)
    control.settimeout(None)
    return control


def _keep_from_children(number: int) -> None:
    try:
        os.set_inheritable(number, False)
    except OSError as error:
        if error.errno != errno.EBADF:  # the descriptor of the listing itself, closed by now
            raise


class Supervisor:
    """One gateway, one platform, one thread, no queue but the dials under way."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._gateway: int | None = None
        self._watch = -1
        self._spare: socket.socket | None = None
        self._warm = -1
        """The spare's end of that, while it is not ready yet."""
        self._port = 0
        self._listening = False
        self._dials: dict[int, float] = {}
        self._next_attempt = 0.0
        self._connecting: dict[int, tuple[int, float, socket.socket]] = {}
        self._kill_at: float | None = None
        self._lease_until: float | None = None

    def run(self) -> int:
        """Returns the gateway's exit code, 128 + N if signal N ended it."""
        self._greet()
        while True:
            ready = {fd for fd, _ in self._poll.poll(self._timeout())}
            if self._control.fileno() in ready and not self._receive():
                return self._end_without_platform()
            if self._watch in ready:
                return self._report_exit()
            if self._warm in ready:
                self._note_warm()
            for fd in ready & self._connecting.keys():
                self._finish_connect(fd)
            if self._watches_for_listening() and _is_listening(self._port):
                self._note_listening()
            if time.monotonic() >= self._next_attempt:
                for dial in list(self._dials):
                    self._connect(dial)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._signal(signal.SIGKILL)
                self._kill_at = None
            # After the message that may be there: a supervisor that was paused finds a new lease waiting.
            if (
                self._lease_until is not None
                and time.monotonic() >= self._lease_until
                and not self._has_word()
            ):
                self._signal(signal.SIGKILL)
                self._lease_until = None

    def _timeout(self) -> float | None:
        """Milliseconds until there is something to do without being asked."""
        waits = []
        if self._dials:
            waits.append(POLL_SECONDS)
        if self._watches_for_listening():
            waits.append(LOOK_SECONDS)
        for end in (self._kill_at, self._lease_until):
            if end is not None:
                waits.append(max(0.0, end - time.monotonic()))
        return 1000 * min(waits) + 1 if waits else None

    def _watches_for_listening(self) -> bool:
        """While a dial is under way its own attempts tell."""
        return not (self._listening or self._gateway is None or self._dials or self._connecting)

    def _greet(self) -> None:
        self._send({"event": "hello", "protocol": PROTOCOL, "hardened": _harden()})

    def _note_listening(self) -> None:
        if not self._listening:
            self._listening = True
            self._send({"event": "listening"})

    def _send(self, body: dict[str, object], attached: socket.socket | None = None) -> None:
        data = [json.dumps(body).encode()]
        if attached is None:
            self._control.sendmsg(data)
        else:
            socket.send_fds(self._control, data, [attached.fileno()])

    def _receive(self) -> bool:
        """Read one message and do it; False where the platform is gone."""
        try:
            data, attached, _, _ = socket.recv_fds(self._control, MAX_MESSAGE + 1, 1)
        except ConnectionError:
            return False
        if not data:
            return False
        for number in attached:
            for standard in (1, 2):
                os.dup2(number, standard)
            os.close(number)
        message = json.loads(data)
        if message["op"] == "start":
            self._start(message)
        elif message["op"] == "warm":
            self._keep_warm(message)
        elif message["op"] == "dial":
            self._dials[message["id"]] = time.monotonic() + DIAL_SECONDS
        elif message["op"] == "stop":
            self._stop(float(message["grace"]))
        elif message["op"] == "lease":
            self._lease_until = float(message["until"])
        return True

    def _has_word(self) -> bool:
        """Whether the platform has said something that is not read yet."""
        return bool(select.select([self._control], [], [], 0)[0])

    def _start(self, message: dict[str, object]) -> None:
        listen, command, environment = message["listen"], message["command"], message["environment"]
        if not isinstance(listen, dict) or not isinstance(command, list) or not isinstance(environment, dict):
            raise TypeError("a start message needs listen, command and environment")
        if self._spare is not None:
            self._greet()
        elif self._gateway is not None:
            return
        if "lease" in message:
            self._lease_until = float(str(message["lease"]))
            if time.monotonic() >= self._lease_until:
                # The platform was held up on its way here: by now another may have started this agent.
                self._send({"event": "failed", "message": "the lease had ended before the start"})
                raise SystemExit(137)
        for name, port in listen.items():
            with socket.create_server(("127.0.0.1", int(port)), backlog=128) as listener:
                self._send({"event": "listener", "name": name}, listener)
        self._port = int(str(message["port"]))
        if self._spare is not None:
            self._limit_spare(message)
            self._hand_over(self._spare, message)
        else:
            _limit_processes(message.get("processes"))
            if "filter" in message:
                _put_on(str(message["filter"]))
            self._spawn(command, environment, str(message["directory"]))
        self._send({"event": "spawned"})

    def _spawn(
        self, command: list[str], environment: dict[str, str], directory: str, inherited: int | None = None
    ) -> None:
        """`inherited` becomes its descriptor 3."""
        try:
            os.chdir(directory)
            self._gateway = os.posix_spawn(
                command[0],
                command,
                environment,
                file_actions=[] if inherited is None else [(os.POSIX_SPAWN_DUP2, inherited, 3)],
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError as error:
            self._send({"event": "failed", "message": f"{command[0]}: {error.strerror}"})
            raise SystemExit(127) from error
        self._watch = os.pidfd_open(self._gateway)
        self._poll.register(self._watch, select.POLLIN)

    def _keep_warm(self, message: dict[str, object]) -> None:
        command, environment = message["command"], message["environment"]
        if not isinstance(command, list) or not isinstance(environment, dict) or self._gateway is not None:
            raise TypeError("a warm message needs command and environment, and comes first")
        self._spare, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._spawn(command, environment, "/", theirs.fileno())
        self._warm = self._spare.fileno()
        self._poll.register(self._warm, select.POLLIN)

    def _note_warm(self) -> None:
        """It is ready, or it has ended, which its own descriptor tells."""
        self._poll.unregister(self._warm)
        self._warm = -1
        if self._spare is not None and self._spare.recv(16) == b"ready\n":
            self._send({"event": "warm"})

    def _limit_spare(self, message: dict[str, object]) -> None:
        """What its processes would inherit if they began now."""
        for name in os.listdir("/proc"):  # noqa: PTH208 - as above
            if name.isdigit() and int(name) > 1:
                _limit_processes(message.get("processes"), int(name))
                if isinstance(message.get("largest"), int):
                    _lower(int(name), RLIMIT_FSIZE, int(str(message["largest"])))

    def _hand_over(self, spare: socket.socket, message: dict[str, object]) -> None:
        order = {name: message[name] for name in ("command", "environment", "directory")}
        spare.settimeout(TAKE_SECONDS)
        with spare:
            self._spare = None
            try:
                spare.sendall(json.dumps(order).encode() + b"\n")
                taken = spare.recv(16) == b"taken\n"
            except OSError:
                taken = False
        if not taken:
            self._send({"event": "failed", "message": "the warm spare did not take over"})
            raise SystemExit(1)

    def _connect(self, dial: int) -> None:
        """Begin a connection; on this machine it is made or refused by the next look at it."""
        attempt = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        attempt.setblocking(False)
        attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        attempt.connect_ex(("127.0.0.1", self._port))
        self._connecting[attempt.fileno()] = (dial, self._dials.pop(dial), attempt)
        self._poll.register(attempt, select.POLLOUT)

    def _finish_connect(self, fd: int) -> None:
        self._poll.unregister(fd)
        dial, deadline, attempt = self._connecting.pop(fd)
        with attempt:
            try:
                attempt.getpeername()
            except OSError:
                self._try_again(dial, deadline)
            else:
                self._note_listening()
                self._send({"event": "connected", "id": dial}, attempt)

    def _try_again(self, dial: int, deadline: float) -> None:
        now = time.monotonic()
        if now >= deadline:
            self._send({"event": "refused", "id": dial})
        else:
            self._dials[dial] = deadline
            self._next_attempt = now + POLL_SECONDS

    def _stop(self, grace: float) -> None:
        if self._gateway is None:
            raise SystemExit(0)
        if self._kill_at is None:
            self._signal(signal.SIGTERM)
        self._kill_at = time.monotonic() + grace

    def _signal(self, number: int) -> None:
        if self._gateway is not None:
            signal.pidfd_send_signal(self._watch, number)

    def _report_exit(self) -> int:
        _, status = os.waitpid(self._gateway or 0, 0)
        code = os.waitstatus_to_exitcode(status)
        code = 128 - code if code < 0 else code
        self._send({"event": "exited", "code": code})
        return code

    def _end_without_platform(self) -> int:
        """Nobody is left to report to; the namespace's other processes end with us."""
        self._signal(signal.SIGKILL)
        return 1


def _harden() -> bool:
    """Keep other processes of this user from tracing us or opening our descriptors: PR_SET_DUMPABLE 0."""
    try:
        import ctypes
    except ImportError:
        return False
    return bool(ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0)


def _put_on(encoded: str) -> None:
    """Let the kernel refuse what this filter (BPF, base64) says, to us and to all that we start.

    Raises OSError where it cannot: the platform has promised the filter.
    """
    import base64
    import ctypes

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

    code = base64.b64decode(encoded)
    program = Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    # PR_SET_NO_NEW_PRIVS, without which PR_SET_SECCOMP with SECCOMP_MODE_FILTER takes a capability.
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _limit_processes(wanted: object, process: int = 0) -> None:
    """Limit this sandbox's processes where the kernel counts them by user namespace; else leave it.

    `process`: whose limit it is, and that of whatever it starts; 0: our own.
    """
    release = tuple(
        int("".join(filter(str.isdigit, part)) or 0) for part in os.uname().release.split(".")[:2]
    )
    if isinstance(wanted, int) and release >= PROCESS_LIMIT_KERNEL:
        _lower(process, RLIMIT_NPROC, wanted)


def _lower(process: int, kind: int, wanted: int) -> None:
    import resource

    try:
        hard = resource.prlimit(process, kind)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.prlimit(process, kind, (limit, limit))
    except ProcessLookupError:
        return


def _is_listening(port: int) -> bool:
    """Whether somebody listens there, without knocking: a bare connection would trouble the gateway."""
    with open("/proc/self/net/tcp", "rb") as table:  # noqa: PTH123 - as above
        next(table)
        for line in table:
            fields = line.split()
            if fields[3] == b"0A" and int(fields[1].rpartition(b":")[2], 16) == port:
                return True
    return False


if __name__ == "__main__":
    sys.exit(main())
