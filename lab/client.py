"""The lab for programs: tests, the demo, the benchmarks."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from lab.control import Reply, Request, Verb, ask
from lab.exceptions import LabError
from lab.fleet import DEFAULT_PASSWORD, DeviceInfo, State, default_images
from lab.keeper import await_end

START_SECONDS = 900.0  # a first start builds the images
STOP_SECONDS = 30.0
POLL = 0.05  # seconds between two looks at the state of a device
COMPLAINTS = "start.log"  # stderr of that process
UP_MESSAGE = "up"  # what `lab up --foreground` says on stdout

Names = str | Iterable[str]


class Lab:
    """A running lab.  It goes when this process goes, also by kill -9; leaving the context stops it."""

    def __init__(self, directory: Path, process: "subprocess.Popen[str] | None" = None) -> None:
        """Speak to the lab in this folder; use Lab.start() to start one."""
        self.directory = directory
        self._process = process

    @classmethod
    def start(
        cls,
        *,
        directory: Path,
        openwrt: int = 2,
        linux: int = 1,
        port: int = 0,
        password: str = DEFAULT_PASSWORD,
        user_key: Path | None = None,
        images: Path | None = None,
    ) -> Self:
        """Start a lab and return once all its devices answer.

        Its files go to `directory`, one lab at a time; `images` (default: LAB_IMAGES or .lab/images) are shared.
        Port 0 takes one that is free.  `user_key` is a file with a public key that may log in as root everywhere.

        Raises:
            LabError: it did not start; the message has the end of its log.
        """
        options = [f"--openwrt={openwrt}", f"--linux={linux}", f"--port={port}", f"--password={password}"]
        if user_key is not None:
            options.append(f"--user-key={user_key.absolute()}")
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        process = _launch(options, directory, (images or default_images()).absolute())
        try:
            _await_ready(process, directory)
        except BaseException:
            with process:  # not stop(): it would end a lab that was up in this folder before
                process.kill()
            raise
        return cls(directory, process)

    def __enter__(self) -> Self:
        """Use the lab."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the lab."""
        self.stop()

    @property
    def pid(self) -> int:
        """The process whose death ends the lab."""
        if self._process is None:
            raise LabError("this lab was not started here")
        return self._process.pid

    def devices(self) -> dict[str, DeviceInfo]:
        """Tell how all devices are now, by name."""
        return {device.name: device for device in self._ask(Verb.STATUS).devices}

    def fault(self, names: Names, kind: str, arg: str | float | None = None) -> None:
        """Make a fault (see FaultKind) on these devices; `names` is a name, several with commas, a list, or "all"."""
        self._ask(Verb.FAULT, names, kind, *([] if arg is None else [str(arg)]))

    def power(self, names: Names, what: Literal["on", "off"]) -> None:
        """Give these devices power, or take it away; does not wait for the effect."""
        self._ask(Verb.POWER, names, what)

    def exec(self, name: str, *argv: str, timeout: float = 60.0) -> tuple[int, str]:
        """Run a program on a device as root, past SSH and its faults; return its exit status and its output."""
        request = Request(verb=Verb.EXEC, names=(name,), arguments=argv, seconds=timeout)
        reply = ask(self.directory, request)
        return reply.rc, reply.output

    def wait_until(
        self, name: str, state: State | str, timeout: float = 30.0, *, boots: int | None = None
    ) -> DeviceInfo:
        """Wait until a device is in this state, and was booted at least `boots` times.

        Just after a reboot was asked for, a device is still up: wait for `boots` one higher.

        Raises:
            LabError: it was not so after `timeout` seconds.
        """
        wanted = State(state)
        end = time.monotonic() + timeout
        while True:
            device = self._ask(Verb.STATUS, name).devices[0]
            if device.state is wanted and device.boots >= (boots or 0):
                return device
            if time.monotonic() > end:
                raise LabError(f"{name} is {device.state} after {device.boots} boots, not {wanted}, {timeout:g} s on")
            time.sleep(POLL)

    def stop(self) -> None:
        """End the lab and wait until nothing of it is left.  A lab that is down already is fine."""
        if self._process is None:
            with suppress(LabError):
                self._ask(Verb.DOWN)
                await_end(self.directory)
            return
        with self._process:
            if self._process.poll() is None:  # else the folder may have another lab by now
                with suppress(LabError):
                    self._ask(Verb.DOWN)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _ask(self, verb: Verb, names: Names = "all", *arguments: str) -> Reply:
        chosen = names.split(",") if isinstance(names, str) else list(names)
        if not chosen:
            raise LabError("no device is named")  # none would mean all
        everyone = chosen == ["all"]
        request = Request(verb=verb, names=() if everyone else tuple(chosen), arguments=arguments)
        return ask(self.directory, request)


def _launch(options: list[str], directory: Path, images: Path) -> "subprocess.Popen[str]":
    """Start the process that keeps the lab, and that goes when this one goes."""
    places = {"LAB_DIR": str(directory), "LAB_IMAGES": str(images)}
    with (directory / COMPLAINTS).open("w") as complaints:
        return subprocess.Popen(
            [sys.executable, "-m", "lab", "up", "--foreground", f"--die-with={os.getpid()}", *options],
            cwd=Path(__file__).parent.parent,
            env=os.environ | places,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )


def _await_ready(process: "subprocess.Popen[str]", directory: Path) -> None:
    """Wait for the word of the new process that its devices are up."""
    assert process.stdout is not None  # noqa: S101  for mypy: it was asked for
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    if not readable:
        raise LabError(f"the lab did not start within {START_SECONDS:g} s")
    if process.stdout.readline().strip() != UP_MESSAGE:
        raise LabError((directory / COMPLAINTS).read_text().strip() or "the lab did not start")
