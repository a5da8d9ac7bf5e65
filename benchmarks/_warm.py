"""`lema` without its start: a process that has imported all of it forks a child for every command.

    python benchmarks/_warm.py SOCKET          serve
    python benchmarks/_warm.py SOCKET make ... run `lema make ...` there, in this folder and with these streams

A recipe has some twenty stages, and the imports of torch take longer than their work at small scale.
"""

import array
import json
import os
import socket
import sys
from pathlib import Path

PRELOADED = (
    "lema.cli",
    "lema.pipeline.run",
    "lema.train.lora",
    "lema.train.pretrain",
    "lema.models.transformers",
    "peft",
)


def serve(path: str) -> None:
    from importlib import import_module

    for name in (*PRELOADED, *(f"lema.stages.{one}" for one in ("samples", "report", "scores"))):
        import_module(name)
    from lema.cli import main
    from lema.compute.files import die_with_parent

    die_with_parent()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            client, _ = server.accept()
            message, streams, _, _ = socket.recv_fds(client, 1 << 16, 2)
            asked = json.loads(message)
            if (child := os.fork()) == 0:
                server.close()
                os.dup2(streams[0], 1)
                os.dup2(streams[1], 2)
                os.chdir(asked["folder"])
                sys.argv = ["lema", *asked["arguments"]]
                main()
            for stream in streams:
                os.close(stream)
            _, status = os.waitpid(child, 0)
            client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            client.close()


def ask(path: str, arguments: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        message = json.dumps({"folder": str(Path.cwd()), "arguments": arguments})
        streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1, 2]))]
        server.sendmsg([message.encode()], streams)
        return int(server.recv(16) or b"1")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
