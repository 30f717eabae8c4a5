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


def main() -> None:
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
