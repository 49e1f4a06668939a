"""Ansible-runner's event dictionaries as HostEvents.  Pure translation: no database, no queue.

Our own actions (ansible_plugins/action/) put a code into their results; this module holds the sentence for each.
Results of other modules and of Ansible's own connection plugins are judged by their message.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from orchestrator.states import CommandStatus

# code → what a person reads. {seconds}: the limit that was passed; {detail}: what ssh or the device said last.
REASONS: Final[Mapping[str, str]] = {
    # nothing was done, and nothing was to be done
    "check_mode": "check mode: would {detail}",
    "skipped": "The playbook skipped this device.",
    # never logged in
    "refused": "The device refused the connection: nothing listens on its SSH port.",
    "no_route": "There is no route to the device's address.",
    "name": "The device's host name could not be resolved.",
    "timeout": "The device did not answer within {seconds} s.",
    "closed": "The device closed the connection before the login was complete.",
    "protocol": "No SSH connection could be negotiated with what answers on the device's port. {detail}",
    "auth": "The device did not accept the login: user name, password or key is wrong.",
    "key": "The private key can't be used: it is no key, or its passphrase is wrong. {detail}",
    "host_key": "The device did not show the host key that is pinned for it, so it was not logged in to.",
    "address": "The device's address cannot be used.",
    "user": "The credential's user name cannot be used.",
    "unknown": "The device could not be logged in to. {detail}",
    "cancelled": "Cancelled before the device was logged in to.",
    # logged in
    "cancelled_running": "Cancelled while it ran; the device may have carried out the command.",
    "connection_lost": "The connection was lost while the command ran; it may or may not have had its effect.",
    "execution_timeout": "The command ran longer than {seconds} s and was given up; it may still run on the device.",
    "held_open": "The command ended, but what it left running held the connection open, so its exit status is unknown: "
    "redirect the output of what should go on in the background.",
    "signal": "The command was killed by a signal on the device.",
    "exit_status": "The command ended with status {rc}.",
    # change_password, reboot
    "not_root": "This needs root, and the login user could not become root with sudo. {detail}",
    "no_account": "The device has no local account of that name.",
    "no_tool": "The device has no program for this. {detail}",
    "password_too_long": "The device's SSH server accepts no password of more than {seconds} bytes; it was not set.",
    "bad_password": "The password holds characters that cannot be set.",
    "not_changed": "The device did not change the password. {detail}",
    "no_return": "The device did not come back within {seconds} s.",
    "not_rebooted": "The device still answers, but did not reboot within {seconds} s.",
    # a play of several tasks
    "task_failed": "A task failed: {detail}",
    "went_away": "The device could not be reached any more. {detail}",
    "not_matched": "No play of the playbook is for this device.",
    "no_task": "The playbook had no task for this device.",
    "not_reached": "The playbook ended before its turn came. {detail}",
    # the run
    "internal": "The command could not be carried out. {detail}",
}
CANCELLED: Final = frozenset({"cancelled", "cancelled_running"})
_UNREACHABLE_SIGNS: Final = (  # in messages of Ansible's own connection plugins
    ("host_key", ("host key verification failed", "host identification has changed", "host key checking is enabled")),
    ("auth", ("permission denied", "invalid/incorrect", "authentication fail", "too many authentication")),
    ("name", ("could not resolve",)),
    ("refused", ("connection refused",)),
    ("no_route", ("no route to host", "network is unreachable")),
    ("timeout", ("timed out", "timeout")),
    ("closed", ("connection closed", "connection reset", "closed by remote host")),
)
_TAG: Final = re.compile(r"\[orchestrator:([a-z_]+)\] ?(.*)", re.DOTALL)
_STATUS: Final = {
    "runner_on_ok": CommandStatus.SUCCESS,
    "runner_on_skipped": CommandStatus.SUCCESS,
    "runner_on_failed": CommandStatus.FAILED,
    "runner_on_unreachable": CommandStatus.UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class HostEvent:
    """What happened to one device."""

    host_name: str
    kind: Literal["started", "finished"]
    at: datetime  # aware
    status: CommandStatus | None = None  # of a finished one
    code: str = ""  # a key of REASONS; "" for a success that did something
    reason: str = ""  # a sentence that a person understands; "" for success, but in check mode
    rc: int | None = None  # None: the command has no exit status that we know of
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    bytes_total: int = 0  # of stdout and stderr together, before they were cut
    recap: dict[str, int] | None = None  # of a play: what Ansible counts at its end, see plays.py


def parse(event: Mapping[str, Any]) -> HostEvent | None:
    """The HostEvent that an event of ansible-runner tells of, or None for all that concerns no single device.

    Holds for playbooks of one task: each result is taken for the device's final one.
    """
    kind, data = str(event.get("event")), event.get("event_data") or {}
    if "host" not in data or kind not in _STATUS:
        return None
    return finished(kind, moment(event.get("created")), data["host"], data.get("res") or {})


def finished(kind: str, at: datetime, host_name: str, result: Mapping[str, Any]) -> HostEvent:
    """The HostEvent of a device's final result; ``kind`` is the name of ansible-runner's event for such a one."""
    ours = result.get("orchestrator") or {}
    rc = result.get("rc") if isinstance(result.get("rc"), int) else None
    status, code, reason = judge(kind, result)
    stdout, stderr = plain_text(result.get("stdout")), plain_text(result.get("stderr"))
    return HostEvent(
        host_name=host_name,
        kind="finished",
        at=at,
        status=status,
        code=code,
        reason=reason,
        rc=rc,
        stdout=stdout,
        stderr=stderr,
        truncated=bool(ours.get("truncated")),
        bytes_total=int(ours.get("bytes_total") or len(stdout.encode()) + len(stderr.encode())),
    )


def judge(kind: str, result: Mapping[str, Any]) -> tuple[CommandStatus, str, str]:
    """Status, code and reason of a result; ``kind`` is the name of its event."""
    ours = result.get("orchestrator") or {}
    status, code, detail = _judge(kind, result, ours)
    rc = result.get("rc")
    seconds = _seconds(ours.get("seconds") or (result.get("timedout") or {}).get("period"))
    reason = REASONS[code].format(detail=detail, seconds=seconds, rc=rc).strip() if code else ""
    if ours.get("last") in ("auth", "host_key"):  # a reboot whose last look met a device, but not as it was
        reason += " " + REASONS[ours["last"]]
    return status, code, reason


def _judge(kind: str, result: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[CommandStatus, str, str]:
    """Status, code and detail of a finished device."""
    status, text = _STATUS[kind], plain_text(result.get("msg"))
    code, detail = str(ours.get("code") or ""), plain_text(ours.get("detail"))
    if status is CommandStatus.SUCCESS:
        return status, "skipped" if kind == "runner_on_skipped" else code, detail
    if not code and (tag := _TAG.search(text)):  # our connection plugin under somebody else's action
        code, detail = tag[1], tag[2]
    if not code and status is CommandStatus.UNREACHABLE:
        low = text.lower()
        code = next((code for code, signs in _UNREACHABLE_SIGNS if any(s in low for s in signs)), "unknown")
    if not code and "timedout" in result:  # the task keyword `timeout`
        code = "execution_timeout"
    if not code and result.get("rc"):
        code = "exit_status"
    if code not in REASONS:
        code, detail = "internal", detail or text[:500]
    if status is CommandStatus.UNREACHABLE and code in CANCELLED:
        return CommandStatus.CANCELLED, code, ""
    if status is CommandStatus.FAILED and code == "host_key":  # Ansible calls a wrong key with a password a failure
        status = CommandStatus.UNREACHABLE
    if status is CommandStatus.FAILED and code == "execution_timeout":
        status = CommandStatus.TIMED_OUT
    return status, code, detail


def plain_text(value: Any) -> str:
    """Text that every database takes: NUL and lone surrogates become U+FFFD."""
    if value is None:
        return ""
    return str(value).replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _seconds(limit: Any) -> float | int:
    seconds = float(limit or 0)
    return int(seconds) if seconds.is_integer() else round(seconds, 1)


def moment(created: Any) -> datetime:
    try:
        at = datetime.fromisoformat(str(created))
    except ValueError:
        return datetime.now(UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
