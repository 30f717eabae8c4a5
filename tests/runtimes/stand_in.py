"""Stands in for Node and OpenClaw inside a sandbox: listens like the gateway and runs what tests ask it to.

What it does beyond that is in the environment variable STAND_IN: `exit N`, `deaf` (never listens),
`compiles` (as Node does), `stubborn` (ignores SIGTERM), `chatty` (writes without end). A connection: Python
in, JSON out.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path


def wait_as_spare() -> None:
    """As `supervisor/spare.mjs`. SPARE: `dies` once it is ready, `hangs` at the hand-over, `fails` after it,
    `deaf` (takes over and never listens).
    """
    mode = os.environ.get("SPARE", "")
    Path("/tmp/of-the-spare").write_text("nobody's")
    with socket.socket(fileno=3) as supervisor, supervisor.makefile("rw") as stream:
        print("ready", file=stream, flush=True)
        if mode == "dies":
            sys.exit(1)
        order = json.loads(stream.readline())
        if mode == "hangs":
            time.sleep(600)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["directory"])
        sys.argv[:] = [sys.argv[0], *order["command"][1:]]
        print("taken", file=stream, flush=True)
    if mode == "fails":
        sys.exit(1)
    os.environ["STAND_IN"] += " warm" + (" deaf" if mode == "deaf" else "")


def main() -> None:
    if any(word.endswith("/spare.mjs") for word in sys.argv[1:]):
        wait_as_spare()
    behaviour = os.environ.get("STAND_IN", "").split()
    print("stand-in:", *sys.argv[1:], *behaviour, flush=True)
    if "exit" in behaviour:
        sys.exit(int(behaviour[1]))
    if "stubborn" in behaviour:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "compiles" in behaviour:
        entry = Path("/tmp/node-compile-cache/v24/entry")
        entry.parent.mkdir(parents=True)
        entry.write_text("compiled")
    if "deaf" in behaviour:
        time.sleep(600)
    while "chatty" in behaviour:
        print("x" * 4095, flush=True)
    with socket.create_server(("127.0.0.1", int(sys.argv[-1]))) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


def serve(connection: socket.socket) -> None:
    with connection, connection.makefile("rw") as stream:
        for line in stream:
            names: dict[str, object] = {}
            try:
                exec(json.loads(line), names)  # tests ask for it
                answer = names.get("answer")
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            stream.write(json.dumps(answer) + "\n")
            stream.flush()


if __name__ == "__main__":
    main()
