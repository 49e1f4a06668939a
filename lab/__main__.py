"""The lab for people: python -m lab up --openwrt 20 --linux 2 --port 2877; status; fault; power; exec; down."""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

import lab
from lab.client import UP_MESSAGE
from lab.control import Reply, Request, Verb, ask, split_names
from lab.exceptions import LabError
from lab.fault import FaultKind
from lab.fleet import DEFAULT_PASSWORD, Plan, default_directory, default_images
from lab.keeper import await_end, up_in_background, up_in_foreground
from lab.requirements import missing_packages, missing_requirements

FAULTS = "one of: " + ", ".join(FaultKind) + "; slow, bootdelay and cut take seconds"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(
        prog="python -m lab",
        description=lab.__doc__,
        epilog="LAB_DIR and LAB_IMAGES say where files are kept; default: .lab/run and .lab/images.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True)
    _add_up(verbs.add_parser("up", help="start a lab"))
    verbs.add_parser("down", help="stop it, and wait until nothing is left")
    status = verbs.add_parser("status", help="show its devices")
    status.add_argument("--json", action="store_true")
    power = verbs.add_parser("power", help="give devices power or take it away")
    power.add_argument("names", help="a,b,c or all")
    power.add_argument("arguments", nargs=1, choices=("on", "off"), metavar="on|off")
    fault = verbs.add_parser("fault", help="make or heal a fault")
    fault.add_argument("names", help="a,b,c or all")
    fault.add_argument("arguments", nargs="+", metavar="KIND [SECONDS]", help=FAULTS)
    execute = verbs.add_parser("exec", help="run a program on a device, past SSH")
    execute.add_argument("names", metavar="NAME")
    execute.add_argument("arguments", nargs=argparse.REMAINDER, metavar="CMD …")
    requirements = verbs.add_parser("requirements", help="say what this machine lacks for a lab; 1 if anything")
    requirements.add_argument("--packages", action="store_true", help="only names for apt-get install; always 0")
    return top


def _add_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--openwrt", type=int, default=0, metavar="N")
    up.add_argument("--linux", type=int, default=0, metavar="N")
    up.add_argument("--port", type=int, default=0, help="on 127.77.x.y, the same for all; default: a free one")
    up.add_argument("--password", default=DEFAULT_PASSWORD, help="of root, and of operator on Linux")
    up.add_argument("--user-key", type=Path, metavar="PATH", help="a public key that may log in as root")
    up.add_argument("--foreground", action="store_true", help="stay, and take the lab along when killed")
    up.add_argument("--die-with", type=int, metavar="PID", help="with --foreground: go when this parent goes")


def up(options: argparse.Namespace) -> int:
    """Start a lab."""
    if missing := missing_requirements():
        raise LabError(f"a lab needs {', '.join(missing)}")
    plan = Plan(
        directory=default_directory(),
        images=default_images(),
        openwrt=options.openwrt,
        linux=options.linux,
        port=options.port,
        password=options.password,
        user_key=options.user_key.read_text() if options.user_key else None,
    )
    if options.foreground:
        return up_in_foreground(plan, on_ready=lambda: print(UP_MESSAGE, flush=True), die_with=options.die_with)
    up_in_background(plan)
    return 0


def show(reply: Reply) -> None:
    """Print the devices as a table."""
    print(f"all up in {reply.started_seconds:.2f} s")
    for device in reply.devices:
        address = f"{device.address}:{device.port}"
        boots = f"boots={device.boots} boot={device.boot_seconds}s"
        print(f"{device.name:12} {address:21} {device.state:10} {boots} {', '.join(device.faults)}".rstrip())


def requirements(options: argparse.Namespace) -> int:
    """Print what is missing, a line each."""
    missing = missing_packages() if options.packages else missing_requirements()
    print("".join(f"{line}\n" for line in missing), end="")
    return 1 if missing and not options.packages else 0


def talk(options: argparse.Namespace) -> int:
    """Ask a running lab."""
    verb = Verb(options.verb)
    names = split_names(getattr(options, "names", "all"))
    arguments = tuple(getattr(options, "arguments", ()))
    reply = ask(default_directory(), Request(verb=verb, names=names, arguments=arguments))
    if verb is Verb.EXEC:
        print(reply.output, end="")
        return reply.rc
    if verb is Verb.DOWN:
        await_end(default_directory())
    elif verb is Verb.STATUS and options.json:
        devices = {device.name: dataclasses.asdict(device) for device in reply.devices}
        print(json.dumps({"started_seconds": reply.started_seconds, "devices": devices}, indent=1))
    elif verb is Verb.STATUS:
        show(reply)
    return 0


def main() -> int:
    """Run the command line; return an exit status."""
    options = parser().parse_args()
    try:
        if options.verb == "up":
            return up(options)
        if options.verb == "requirements":
            return requirements(options)
        return talk(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: do not fail again at exit
        return 1


if __name__ == "__main__":
    sys.exit(main())
