"""Looking for known secrets in everything that a service leaves behind, whatever their form."""

import base64
import contextlib
import os
import secrets
import subprocess
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.stack import redis_server


class Canaries:
    """Secrets by name.  Each has a core of letters and digits, which every way of quoting leaves as it is."""

    def __init__(self) -> None:
        self.cores: dict[str, bytes] = {}
        self.strangers: dict[str, bytes] = {}  # made elsewhere
        self.mark = secrets.token_hex(6)  # begins each core: where it is not, no core is

    def make(self, name: str, wrap: str = "{}") -> str:
        """A new secret; ``wrap`` is what stands around its core."""
        core = self.mark + secrets.token_hex(6)
        self.cores[name] = core.encode()
        return wrap.format(core)

    def add(self, name: str, core: str | bytes) -> None:
        """A secret that was made elsewhere: a part of it that is telling enough."""
        self.strangers[name] = core if isinstance(core, bytes) else core.encode()

    def find(self, content: bytes) -> set[str]:
        """The names of the secrets that the content shows."""
        known = dict(self.strangers)
        if _holds(content, self.mark.encode()):
            known |= self.cores
        return {name for name, core in known.items() if _holds(content, core)}


def _holds(content: bytes, core: bytes) -> bool:
    return any(form in content for form in _forms(core))


def _forms(core: bytes) -> Iterator[bytes]:
    """Plain, in hexadecimal, and the part of each base64 that only the core has a part in."""
    yield core
    yield core.hex().encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + core).rstrip(b"=")
        yield encoded[before + (before > 0) : -1]


@dataclass
class Findings:
    """Which secret was found where; and how much was looked at, for a search that sees nothing finds nothing."""

    canaries: Canaries
    found: set[tuple[str, str]] = field(default_factory=set)
    looked: dict[str, int] = field(default_factory=dict)  # kind of place → bytes

    def look(self, kind: str, where: str, content: bytes) -> None:
        """Search some content."""
        self.looked[kind] = self.looked.get(kind, 0) + len(content)
        self.found |= {(name, f"{kind}: {where}") for name in self.canaries.find(content)}

    def files(self, kind: str, *tops: Path) -> None:
        """Search all files below these folders."""
        for path in (path for top in tops for path in top.rglob("*") if path.is_file() and not path.is_symlink()):
            with contextlib.suppress(OSError):
                self.look(kind, str(path), path.read_bytes())

    def append_only(self, path: Path) -> None:
        """Search a queue server's append-only file: every value that was ever written, also the packed ones."""
        for value in resp_strings(path.read_bytes()):
            self.look("queue", path.name, value)
            with contextlib.suppress(zlib.error):
                self.look("queue, unpacked", path.name, zlib.decompress(value))


def resp_strings(raw: bytes) -> Iterator[bytes]:
    """The bulk strings of RESP (the protocol of Redis), in which an append-only file is written."""
    at = 0
    while (start := raw.find(b"$", at)) >= 0:
        end = raw.find(b"\r\n", start)
        length = raw[start + 1 : end]
        if end < 0 or not length.isdigit():
            at = start + 1
            continue
        yield raw[end + 2 : end + 2 + int(length)]
        at = end + 2 + int(length)


@contextlib.contextmanager
def sampled(findings: Findings) -> Iterator[set[str]]:
    """Search the command line and environment of each process of the machine while the block runs.

    Gives the names of the programs that were seen.
    """
    seen: set[str] = set()
    lines: dict[str, bytes] = {str(os.getpid()): b""}  # process → its command line when it was searched
    over = threading.Event()

    def look(pid: str) -> None:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if line == lines.get(pid):
            return  # its environment is from the same exec
        lines[pid] = line
        seen.add(line.split(b"\0")[0].rsplit(b"/", 1)[-1].decode(errors="replace"))
        findings.look("command lines", line.decode(errors="replace"), line)
        findings.look("environments", line.decode(errors="replace"), Path(f"/proc/{pid}/environ").read_bytes())

    def sample() -> None:
        old = frozenset(filter(str.isdigit, os.listdir("/proc"))) - {str(os.getpid())}
        while True:
            for pid in filter(str.isdigit, os.listdir("/proc")):
                if pid not in old or pid not in lines:
                    with contextlib.suppress(OSError):
                        look(pid)
            if over.wait(0.02):
                return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def queue_server(folder: Path, password: str) -> Iterator[str]:
    """A queue server that writes down all it is told; its URL.  Its settings go in by its standard input."""
    folder.mkdir()
    socket = folder / "q.sock"
    settings = {
        "port": 0, "unixsocket": socket, "unixsocketperm": 700, "save": '""', "dir": folder, "appendonly": "yes",
        "appendfsync": "no", "auto-aof-rewrite-percentage": 0, "rdbcompression": "no", "requirepass": password,
    }  # fmt: skip
    with subprocess.Popen([redis_server(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        assert server.stdin
        server.stdin.write("".join(f"{name} {value}\n" for name, value in settings.items()))
        server.stdin.close()
        until = time.monotonic() + 20.0
        while not socket.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        try:
            yield f"unix://:{password}@{socket}"
        finally:
            server.terminate()


def links(page: str, prefix: str) -> Iterable[str]:
    """The addresses that a page links to, below a prefix."""
    for part in page.split('href="')[1:]:
        address = part.partition('"')[0].partition("#")[0].replace("&amp;", "&")
        if address.startswith(prefix):
            yield address
