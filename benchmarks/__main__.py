"""python -m benchmarks [--quick] [--sizes 1,100,1000] [--rounds 3] [--only NAME …]

Measures in rounds: in each, everybody runs once over each number of devices, one after the other; so what else the
machine does meanwhile is everybody's.  Medians and ratios go to benchmarks/results/ and docs/benchmarks.md.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import report
from benchmarks.contenders import EVERYBODY, PROGRAMS, Program
from benchmarks.devices import Device, Fleet, openssh
from benchmarks.measurement import Measurement, adopt_orphans
from benchmarks.service import Service, running
from lab import Lab

QUICK_SLOW: Final = 50  # devices that slow contenders get in a quick run
INSIDE: Final = "BENCHMARK_INSIDE"  # set in the process that has its own network
SERVICES: Final = {"service": False, "service on PostgreSQL": True}
Result = dict[tuple[str, int, str], list[Measurement]]  # (fleet, devices, contender) → a measurement of each round


def main() -> int:
    """Measure and report."""
    options = _options()
    if os.geteuid() != 0:
        print("The benchmark starts an sshd that logs in as root, in a network of its own: run it as root.")
        return 2
    if INSIDE not in os.environ:  # loopback only: the sshd takes a key, and must be reachable from nowhere else
        command = ["unshare", "--net", "--mount", sys.executable, "-m", "benchmarks", *sys.argv[1:]]
        os.execvpe(command[0], command, os.environ | {INSIDE: "1"})  # noqa: S606 - one process, that gets the signals
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is cleared away
    adopt_orphans()
    result = _measure(options)
    report.write(result, about={"rounds": options.rounds, "quick": options.quick}, publish=not options.only)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of at most 100 devices: under three minutes")
    parser.add_argument("--sizes", type=lambda text: [int(each) for each in text.split(",")])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--openwrt", type=int, help="devices of the lab; 0: none")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a contender; nothing is published")
    options = parser.parse_args()
    options.sizes = options.sizes or ([1, 100] if options.quick else [1, 100, 1000])
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.openwrt = (20 if options.quick else 100) if options.openwrt is None else options.openwrt
    return options


def _measure(options: argparse.Namespace) -> Result:
    result: Result = defaultdict(list)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestrator-bench-")))
        whole = stack.enter_context(openssh(max(options.sizes)))
        fleets = [whole.first(size) for size in options.sizes]
        spared = [whole.server or 0]
        if options.openwrt:
            lab = stack.enter_context(Lab.start(directory=folder / "lab", openwrt=options.openwrt, linux=0,
                                                user_key=whole.key.with_suffix(".pub")))  # fmt: skip
            spared.append(lab.pid)
            fleets.append(_openwrt(lab, whole.key))
        contenders: list[Program | Service] = [each for each in PROGRAMS if _chosen(each.name, options.only)]
        for name, postgres in SERVICES.items():
            if _chosen(name, options.only):
                service = stack.enter_context(running(name, folder / name.replace(" ", "-"), postgres=postgres))
                contenders.append(service)
                spared += [service.stack.pid, service.database or 0]
        for number in range(options.rounds):
            for fleet in fleets:
                for contender in contenders:
                    _go(result, contender, fleet, folder / f"{number}", spared, quick=options.quick)
    return result


def _chosen(name: str, only: Sequence[str]) -> bool:
    return not only or name in only


def _go(
    result: Result, contender: Program | Service, fleet: Fleet, folder: Path, spared: Sequence[int], *, quick: bool
) -> None:
    if isinstance(contender, Program):
        if fleet.title not in contender.platforms:
            return
        slow = contender.most < EVERYBODY
        part = fleet.first(min(len(fleet.devices), QUICK_SLOW if quick and slow else contender.most))
    else:
        part = fleet
    place = folder / f"{fleet.title}-{len(fleet.devices)}-{contender.name.replace(' ', '-')}"
    found = contender.go(part, place, spared)
    result[(fleet.title, len(fleet.devices), contender.name)].append(found)
    print(
        f"{time.strftime('%H:%M:%S')} {fleet.title} {len(part.devices):5} {contender.name:24} "
        f"{found.rate:7.1f}/s  {found.seconds:6.1f} s  first {found.first:5.2f} s  "
        f"client {1000 * found.cpu['client'] / found.devices:6.1f} ms  {found.memory:5.0f} MiB",
        flush=True,
    )


def _openwrt(lab: Lab, key: Path) -> Fleet:
    devices: list[Any] = list(lab.devices().values())
    return Fleet("OpenWrt", [Device(d.name, d.address, d.port, d.hostkey, "openwrt") for d in devices], key)


if __name__ == "__main__":
    sys.exit(main())
