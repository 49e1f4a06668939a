"""Starts the lab and the service, tells the story, and stops what was started, whatever happened."""

import fcntl
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from demo import service, terminal
from demo.api import Api, ApiError
from demo.story import Story, StoryError
from lab import Lab, LabError, missing_requirements
from lab.fleet import default_images
from orchestrator.stack import BASE_DIR, StackError

OPENWRT, LINUX = 20, 2  # devices
FILES = BASE_DIR / "var" / "demo"
LOGS = FILES / "logs"  # of the last demo that failed
INTERRUPTED = 130  # exit status, as a shell has it


def main() -> int:
    """Run the demo; its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # ✓ where the terminal does not know it
    if missing := missing_requirements():
        print(f"The lab of SSH devices cannot run here; missing: {', '.join(missing)}.", file=sys.stderr)
        return 2
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    service.forget_settings()
    began = time.monotonic()
    try:
        with _directory() as directory:
            _demo(directory)
    except KeyboardInterrupt:
        terminal.say("\nInterrupted; everything is stopped.")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: do not fail again at exit
        return 1
    except (ApiError, LabError, StackError, StoryError) as error:
        terminal.say(f"\nThe demo failed: {error}\nEverything is stopped. The logs are kept in {LOGS}.")
        return 1
    terminal.say(f"\nAll of it held. Everything is stopped. {time.monotonic() - began:.0f} s")
    return 0


def _demo(directory: Path) -> None:
    terminal.heading(f"Start a lab of {OPENWRT} OpenWrt-like and {LINUX} Linux devices with real SSH, and the service")
    if not default_images().exists():
        terminal.say("  The first start makes the images of the devices, which takes about a minute.")
    with Lab.start(directory=directory / "lab", openwrt=OPENWRT, linux=LINUX) as lab:
        addresses = [f"{device.address}:{device.port}" for device in lab.devices().values()]
        terminal.say(f"  lab:     {len(addresses)} devices answer at {addresses[0]} … {addresses[-1]}")
        with service.stack(directory / "service") as stack:
            terminal.say(f"  service: {stack.url}, 2 workers, a private queue server")
            api = Api(stack.url)
            api.sign_in(*service.make_superuser(stack))
            Story(api=api, lab=lab, directory=directory).tell()
            terminal.heading("Stop the service and the lab")


@contextmanager
def _directory() -> Iterator[Path]:
    """An empty directory for everything of this demo, gone afterwards; after a failure the logs are kept."""
    FILES.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with _locked(FILES):  # of demos that start at once, none sweeps what the other has made and not yet locked
            _sweep()
            made = tempfile.TemporaryDirectory(prefix="run-", dir=FILES, ignore_cleanup_errors=True)
            directory = Path(stack.enter_context(made))
            stack.enter_context(_locked(directory))
        try:
            yield directory
        except Exception:
            _keep_logs(directory)
            raise


@contextmanager
def _locked(directory: Path, flags: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Lock a directory; the kernel lets go when this process dies, however."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, flags)
        yield
    finally:
        os.close(descriptor)


def _sweep() -> None:
    """Remove what demos have left that were killed."""
    for left in FILES.glob("run-*"):
        with suppress(OSError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(left, ignore_errors=True)


def _keep_logs(directory: Path) -> None:
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir()
    for log in (*directory.glob("service/logs/*.log"), *directory.glob("lab/*log")):
        shutil.copy(log, LOGS / f"{log.parent.name}-{log.name}" if log.parent.name == "lab" else LOGS)


def _interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
