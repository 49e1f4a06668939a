"""A fleet of real SSH devices on one machine, without Docker.  Linux only.

A device is a busybox init, PID 1 of its own PID, mount, UTS, IPC, network and time namespace.  All of them and their
supervisor live in one user, mount and PID namespace, whose PID 1 is the supervisor: when it dies, however, the kernel
removes every process, mount and interface.  Root of a device has no right over the host, so its reboot(2) cannot hit
it: the kernel ends the device's init with SIGHUP (restart) or SIGINT (halt); the supervisor sees which, and boots it
again.  A wire carries TCP from 127.77.x.y:port on the host to port 22 in the device; network faults are made there.

From the outside in: client (for programs), __main__ (for people), control (their language), keeper (starts a lab),
supervisor, device, boot, disk, wire; beside them image and recipe, fleet, fault, namespaces, requirements.
"""

from lab.client import Lab
from lab.exceptions import LabError
from lab.fault import FaultKind
from lab.fleet import DeviceInfo, Kind, State
from lab.requirements import missing_requirements

__all__ = ["DeviceInfo", "FaultKind", "Kind", "Lab", "LabError", "State", "missing_requirements"]
