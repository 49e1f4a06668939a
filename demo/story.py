"""What happens in the demo, in the order in which it happens."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from demo import terminal
from demo.api import Api
from demo.fleet import Fleet
from demo.witness import Witness
from lab import Lab, State
from lab.fleet import DEFAULT_PASSWORD

FINISHED = {"success", "partial", "failed", "cancelled"}
POLL = 0.2  # seconds between two looks at a run
LIMIT = 180.0  # seconds, for any run of the demo

NEW_PASSWORD = "n3w $(id) {{ 7*7 }} \"é'%s\\"  # what a shell or a template would stumble over, set exactly
CHANGED = ("openwrt1", "openwrt2", "openwrt3", "openwrt4", "openwrt5", "linux1")
REBOOTED = ("openwrt6", "openwrt7", "openwrt8", "linux2")
UNPLUGGED = "openwrt9"
UNTOUCHED = "openwrt10"


class StoryError(Exception):
    """Something was not as it should be; the checks that were printed tell what."""


class Story:
    """A user of the API with a fleet, and a witness who does not believe the API."""

    def __init__(self, *, api: Api, lab: Lab, directory: Path) -> None:
        """`directory` is for the witness's files."""
        self.api, self.lab = api, lab
        self.checks = terminal.Checks()
        self.known = lab.devices()
        self.witness = Witness(lab, directory)
        self.fleet: Fleet

    def tell(self) -> None:
        """All of it.

        Raises:
            StoryError: a check has failed; the story was told to its end.
        """
        self.register()
        self.uptime()
        self.change_passwords()
        self.reboot()
        self.unplug()
        if self.checks.failed:
            raise StoryError(f"{self.checks.failed} of {self.checks.failed + self.checks.passed} checks (✗) failed")

    def register(self) -> None:
        """The fleet becomes known to the service; the host keys that it pins are the devices' own."""
        terminal.heading("Register the fleet")
        self.fleet = Fleet.register(self.api, self.known, password=DEFAULT_PASSWORD)
        listed = self.api.get("controller/device/", organization=self.fleet.organization)["count"]
        self.checks.check(listed == len(self.known), "devices in the service", listed)
        pinned = self.fleet.pin_host_keys(self.api)
        right = [name for name, key in pinned.items() if key == self.known[name].hostkey]
        wrong = sorted(set(self.known) - set(right))
        seen = f"{len(right)} of {len(self.known)}" + (f", not {', '.join(wrong)}" if wrong else "")
        self.checks.check(not wrong, "each pinned host key is the one that the device has", seen)

    def uptime(self) -> None:
        """One command on all devices: exactly those that were previewed."""
        terminal.heading(f"Run uptime on all {len(self.known)} devices")
        run = self._run("custom", {"command": "uptime"}, organization=self.fleet.organization)
        terminal.table(run["rows"].values())
        self.checks.check(run["status"] == "success", "the run succeeded", run["status"])
        told = [name for name, row in run["rows"].items() if row["rc"] == 0 and "load average" in row["stdout"]]
        self.checks.check(set(told) == set(self.known), "devices that told their uptime", len(told))

    def change_passwords(self) -> None:
        """Another password on some devices; the others keep the old one."""
        terminal.heading(f"Change the password on {len(CHANGED)} devices")
        values = {"password": NEW_PASSWORD, "confirm_password": NEW_PASSWORD}
        run = self._run("change_password", values, devices=self.fleet.ids(CHANGED))
        terminal.table(run["rows"].values())
        self.checks.check(run["status"] == "success", "the run succeeded", run["status"])
        self.checks.check(NEW_PASSWORD not in str(run), "no reply holds the password", run["input"])
        new, old = self.witness.logins(CHANGED, NEW_PASSWORD), self.witness.logins(CHANGED, DEFAULT_PASSWORD)
        self._check_each("ssh with the new password logs in", {name: new[name] == name for name in CHANGED}, new)
        denied = {name: "Permission denied" in old[name] for name in CHANGED}
        self._check_each("ssh with the old password does not", denied, old)
        other = self.witness.logins([UNTOUCHED], DEFAULT_PASSWORD)[UNTOUCHED]
        self.checks.check(other == UNTOUCHED, f"{UNTOUCHED}, not part of the run, has its old password", other)

    def reboot(self) -> None:
        """A reboot has succeeded when the device is back; nobody else has rebooted."""
        terminal.heading(f"Reboot {len(REBOOTED)} devices")
        before = self.witness.boot_ids()
        run = self._run("reboot", {}, devices=self.fleet.ids(REBOOTED))
        after = self.witness.boot_ids()
        terminal.table(run["rows"].values())
        self.checks.check(run["status"] == "success", "the run succeeded", run["status"])
        changed = {name: bool(after[name]) and before[name] != after[name] for name in before}
        seen = {name: f"{before[name][:8]} → {after[name][:8]}" for name in before}
        self._check_each("another boot id", {name: changed[name] for name in REBOOTED}, seen)
        others = sorted(name for name in before if changed[name] and name not in REBOOTED)
        self.checks.check(not others, "no other device has rebooted", ", ".join(others) or "the same boot ids")

    def unplug(self) -> None:
        """A device without power is told apart from the others; and the stored credentials followed the passwords."""
        terminal.heading(f"Unplug {UNPLUGGED}, and run hostname on all {len(self.known)} devices")
        self.lab.power(UNPLUGGED, "off")
        self.lab.wait_until(UNPLUGGED, State.OFF)
        run = self._run("custom", {"command": "hostname"}, organization=self.fleet.organization)
        dead = run["rows"].pop(UNPLUGGED)
        terminal.table([dead])
        self.checks.check(run["status"] == "partial", "the run succeeded in part", run["status"])
        gone = dead["status"] == "unreachable" and bool(dead["reason"])
        self.checks.check(gone, f"{UNPLUGGED} is unreachable, with a reason", dead["reason"] or dead["status"])
        right = {
            name: row["status"] == "success" and row["stdout"].strip() == name for name, row in run["rows"].items()
        }
        words = {name: row["reason"] or row["stdout"].strip() for name, row in run["rows"].items()}
        self._check_each("the others succeeded", right, words)
        self._check_each(
            "among them those with the new password: the stored credential followed",
            {name: right[name] for name in CHANGED},
            words,
        )

    def _run(self, kind: str, values: dict[str, str], **targets: Any) -> dict[str, Any]:
        """Preview, start with the preview's digest, and wait for the end; the detail, with rows by device name."""
        request = {"type": kind, "input": values, **targets}
        preview = self.api.post("controller/batch-command/confirmation/?page_size=100", request)
        places = ", ".join(f"{row['count']} {row['name']}" for row in preview["breakdown"]["location"])
        terminal.say(f"  preview: {preview['eligible_count']} of {preview['count']} devices eligible ({places})")
        began = self.api.post("controller/batch-command/", {**request, "digest": preview["digest"]})
        address = f"controller/batch-command/{began['id']}/"
        end = time.monotonic() + LIMIT
        with terminal.Progress() as progress:
            while True:
                run: dict[str, Any] = self.api.get(address)
                progress.show(run)
                if run["status"] in FINISHED or time.monotonic() > end:
                    break
                time.sleep(POLL)
        rows = {row["device_name"]: row for row in self.api.all(f"{address}commands/")}
        previewed = {row["name"] for row in preview["results"]}
        self.checks.check(set(rows) == previewed, "the run has exactly the previewed devices", len(rows))
        run["rows"] = {name: rows[name] for name in self.known if name in rows}
        return run

    def _check_each(self, claim: str, held: dict[str, bool], seen: dict[str, str]) -> None:
        """A check on several devices: all of them, or the first that are not so and what was seen there."""
        wrong = [name for name, so in held.items() if not so]
        examples: Iterable[str] = wrong[:3] or list(held)[:1]
        shown = ", ".join(f"{name}: {terminal.one_line(seen[name], 60) or 'nothing'}" for name in examples)
        self.checks.check(not wrong, claim, f"{len(held) - len(wrong)} of {len(held)} ({shown})")
