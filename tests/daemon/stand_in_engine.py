"""A stand-in for an engine, for what a real one does too rarely: it behaves as its file says.

``python stand_in_engine.py FILE PORT``; FILE holds a JSON object and is read at each start.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    file, port = Path(sys.argv[1]), int(sys.argv[2])
    wish = json.loads(file.read_text("utf-8"))
    starts = file.with_suffix(".starts")
    with starts.open("a") as count:
        count.write(f"{os.getpid()} {port}\n")
    say(f"phase: started, key {os.environ.get('QWHARF_API_KEY', 'unset')}")
    if wish.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if wish.get("helper"):
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        say(f"helper {helper.pid}")
    for n in range(wish.get("flood_lines", 0)):
        sys.stderr.write(f"flood {n} {'x' * 60}\n")
    if wish.get("silent"):
        time.sleep(600)
    while wish.get("spin"):
        pass
    for n in range(wish.get("slow_steps", 0)):
        say(f"phase: step {n}")
        time.sleep(0.1)
    if "die" in wish:
        say(f"error: {wish['die']}")
        sys.exit(3)
    if "die_once" in wish and not file.with_suffix(".died").exists():
        file.with_suffix(".died").touch()
        say(f"error: {wish['die_once']}")
        sys.exit(3)
    say("weights = 1000")
    serve(wish, port)


def serve(wish: dict[str, object], port: int) -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as e:
        say(f"error: port {port}: {e.strerror}")
        sys.exit(1)
    listener.listen()
    say("phase: listening")
    while True:
        line, _ = listener.accept()
        threading.Thread(target=answer, args=(line, wish), daemon=True).start()


def answer(line: socket.socket, wish: dict[str, object]) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = line.recv(65536)
        if not piece:
            return
        data += piece
    method, path = data.split(b" ")[:2]
    if path == b"/crash":
        say("error: asked to crash")
        os._exit(4)
    if path == b"/hang":
        wish["hung"] = True
    if path == b"/slots" and wish.get("crash_on_slots"):
        say("error: slots")
        os._exit(5)
    if wish.get("hung"):
        time.sleep(600)
    body = json.dumps({"method": method.decode(), "path": path.decode()}).encode()
    line.sendall(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
        + f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    line.close()


if __name__ == "__main__":
    main()
