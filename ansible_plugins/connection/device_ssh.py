"""One ssh process per command, and a sure answer to what became of it.

Ansible's own `ssh` connection cannot tell a command that exits 255 from a device that was never reached, runs the
command again when a retry is configured, keeps all output in memory, and leaves ssh running after a task's timeout.
This one reads ssh's own log beside the command's output: "Authenticated to" says that we were logged in,
"rtype exit-status" that the command ended by itself.  What a user or a device writes never reaches that log.

Needs OpenSSH 8.5 or newer (LogVerbose).  Imports nothing of the orchestrator.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.connection import ssh

from ansible_plugins.cooperation import aborted, offload, shares, wait_for
from ansible_plugins.run_state import LOGGED_IN, STOPPED, has, is_stopped, note_login, tells_secret
from ansible_plugins.session import ALIVE_MOST, ALIVE_SECONDS, Capture, Heard, Limits, Session
from ansible_plugins.ssh_process import Log, carry_out, follow

# Ansible reads this when it loads the plugin: the options of its own ssh connection, and these.
DOCUMENTATION = (
    ssh.DOCUMENTATION.replace("name: ssh\n", "name: device_ssh\n", 1)
    + """
      host_key_alias:
        description: The name under which the device's key stands in O(known_hosts).
        vars: [{name: inventory_hostname}, {name: orchestrator_host_name}]  # the last counts: a delegated task's too
      host_key_algorithms:
        description: The kinds of the device's pinned keys, as ssh's HostKeyAlgorithms takes them.
        default: ""
        vars: [{name: orchestrator_host_key_algorithms}]
      known_hosts:
        description: Absolute path of the only file of host keys that is believed.
        default: ""
        env: [{name: ORCHESTRATOR_KNOWN_HOSTS}]
      execution_timeout:
        description: Seconds that one command may take after the login; 0 is no limit.
        type: float
        default: 0
        env: [{name: ORCHESTRATOR_EXECUTION_TIMEOUT}]
        vars: [{name: orchestrator_execution_timeout}]
      ssh_library:
        description: Whether tasks that share a process use connections of that process, where they mean the same.
        type: bool
        default: false
        env: [{name: ORCHESTRATOR_SSH_LIBRARY}]
      output_limit:
        description: Bytes of each of stdout and stderr that our own actions keep, half of it head and half tail.
        type: int
        default: 1048576
        env: [{name: ORCHESTRATOR_OUTPUT_LIMIT}]
"""
)

ASKPASS = Path(__file__).resolve().parent.parent / "askpass"
PLAIN_ADDRESS = re.compile(r"[0-9A-Za-z_:][0-9A-Za-z._:%-]{0,254}")  # a name, IPv4, IPv6 with or without a zone
PLAIN_USER = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._@+-]{0,63}\$?")


SSH_PORT = 22
SECRETS = {"password": "password", "private_key": "private_key", "passphrase": "private_key_passphrase"}
ONLY_SSH = ("ssh_common_args", "ssh_extra_args", "private_key_file", "pkcs11_provider", "control_path", "verbosity")
FROM_STDIN = 'eval "$(cat)"'  # in the shell that would have got the command line


class NotLoggedIn(AnsibleConnectionFailure):  # type: ignore[misc]  # Ansible has no types
    """The device was never logged in to, so nothing ran on it."""


class Stopped(AnsibleConnectionFailure):  # type: ignore[misc]
    """The device was cancelled: unreachable for Ansible, so that no further task of the play is run on it."""


class Broken(AnsibleError):  # type: ignore[misc]
    """The command was begun, and its end is not known."""


class Connection(ssh.Connection):  # type: ignore[misc]
    """Ansible's ssh connection with our own way of running a command."""

    transport = "device_ssh"
    _password_fd = -1

    # ------------------------------------------------------------ what our actions call
    def attempt(
        self, command: str, in_data: bytes = b"", *, connect_timeout: float = 0, execution_timeout: float = 0
    ) -> dict[str, Any]:
        """Run a command line once.  The result of a task; never raises for what the device or the network does.

        Times in seconds, 0 = the option's.
        """
        try:
            session = self.converse(
                command,
                in_data,
                limit=self.get_option("output_limit"),
                connect_timeout=connect_timeout,
                execution_timeout=execution_timeout,
            )
        except AnsibleError as error:
            why = {"code": "internal", "detail": str(error)[:300]}
            return {"failed": True, "changed": False, "msg": str(error), "orchestrator": why}
        return result_of(session)

    # ------------------------------------------------------------ what Ansible calls
    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """For modules and actions that are not ours: all output, and exceptions."""
        if sudoable and self.become:  # Ansible's own state machine answers sudo's questions, see _run
            return super().exec_command(cmd, in_data=in_data, sudoable=sudoable)  # type: ignore[no-any-return]
        if not in_data and tells_secret(cmd):  # ssh's command line is to be read by everybody on this machine
            cmd, in_data = FROM_STDIN, cmd.encode()
        session = self.converse(cmd, in_data or b"", limit=0)
        raise_unless_ended(session)
        return session.rc, session.stdout.value(), session.stderr.value()

    def _run(
        self, cmd: list[bytes], in_data: bytes | None, sudoable: bool = True, checkrc: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Without the decorator of the original: a retry could run a command twice."""
        host = str(self.get_option("host_key_alias"))
        if has(STOPPED, host):
            raise_unless_ended(cancelled(host))
        with Log() as log:
            # checkrc: rc 255 is judged by the log, not by the number
            argv = log.into(cmd)
            rc, out, err = offload(lambda: self._bare_run(argv, in_data, sudoable=sudoable, checkrc=False))
            session = Session(rc, Capture(0), Capture(0), log.heard())
            if session.logged_in:
                note_login(host)
            raise_unless_ended(session)
        return rc, out, err

    def _build_command(self, binary: str, subsystem: str, *other_args: bytes | str) -> list[bytes]:
        """Ours come first, and ssh takes the first of two.  `--` before the address: what follows is no option."""
        if code := self._unusable():
            raise NotLoggedIn(f"[orchestrator:{code}] ssh cannot be given this {code}.")
        self.host = address = str(self.get_option("host"))
        argv: list[bytes] = super()._build_command(binary, subsystem)
        ours = [x.encode() for option in self._ssh_options() for x in ("-o", option)]
        if subsystem == "ssh" and address in other_args:
            at = other_args.index(address)
            other_args = (*other_args[:at], "--", *other_args[at:])
        return [argv[0], b"-F", b"/dev/null", *ours, *argv[1:], *(os.fsencode(x) for x in other_args)]

    def _unusable(self) -> Literal["", "address", "user"]:
        """What of the inventory must not come near ssh's command line."""
        if not PLAIN_ADDRESS.fullmatch(str(self.get_option("host"))):
            return "address"
        return "" if PLAIN_USER.fullmatch(str(self.get_option("remote_user") or "root")) else "user"

    def _ssh_options(self) -> list[str]:
        password, key = self.get_option("password"), self.get_option("private_key")
        methods = [m for m, wanted in (("publickey", key), ("password,keyboard-interactive", password)) if wanted]
        options = [
            "StrictHostKeyChecking=yes",
            "UpdateHostKeys=no",
            "CheckHostIP=no",
            "ControlMaster=no",
            "ControlPath=none",
            "ForwardAgent=no",
            "ForwardX11=no",
            "ClearAllForwardings=yes",
            "PermitLocalCommand=no",
            "EscapeChar=none",
            f"ConnectTimeout={int(self.get_option('timeout')) + 1}",  # seconds; follow() comes first
            f"ServerAliveInterval={ALIVE_SECONDS}",
            f"ServerAliveCountMax={ALIVE_MOST}",
            "NumberOfPasswordPrompts=1",
            "IdentitiesOnly=yes",
            f"PreferredAuthentications={','.join(methods) or 'publickey'}",
        ]
        if not key:
            options.append("IdentityAgent=none")
        if not password:
            options.append("BatchMode=yes")
        if known_hosts := self.get_option("known_hosts"):
            # By the name that the service gave, not by address: what one device's key is never speaks for another.
            options += [f"UserKnownHostsFile={known_hosts}", "GlobalKnownHostsFile=/dev/null"]
            options.append(f"HostKeyAlias={self.get_option('host_key_alias')}")
        if algorithms := self.get_option("host_key_algorithms"):
            options.append(f"HostKeyAlgorithms={algorithms}")
        return options

    def _init_shm(self) -> dict[str, Any]:
        """How ssh gets the password: from a small program that reads it from memory.

        Ansible's own way starts a whole `ansible` for this, about 60 ms of CPU for each login.
        """
        password = self.get_option("password")
        if not password:
            return {"start_new_session": True}
        if self._password_fd < 0:
            self._password_fd = os.memfd_create("password")
            os.write(self._password_fd, str(password).encode() + b"\n")
        env = os.environ | {
            "ORCHESTRATOR_ASKPASS": f"/proc/{os.getpid()}/fd/{self._password_fd}",
            "SSH_ASKPASS": str(ASKPASS),
            "SSH_ASKPASS_REQUIRE": "force",
        }
        return {"start_new_session": True, "env": env}

    # ------------------------------------------------------------ one ssh process
    def converse(
        self,
        command: str,
        in_data: bytes = b"",
        *,
        limit: int,
        connect_timeout: float = 0,
        execution_timeout: float = 0,
    ) -> Session:
        """Run a command line over a login of its own; bounded in time, and in memory by `limit` bytes per stream.

        Raises AnsibleError when ssh cannot be started at all.
        """
        if not command.strip() or "\0" in command:
            raise AnsibleError("The command line is empty or holds a NUL character.")
        if code := self._unusable():
            return Session(255, Capture(0), Capture(0), Heard(), code)
        host = str(self.get_option("host_key_alias"))
        if has(STOPPED, host):
            return cancelled(host)
        limits = self._limits(host, connect_timeout, execution_timeout)
        outputs = Capture(limit), Capture(limit)
        session = self._inside(command, in_data, outputs, limits) or self._outside(command, in_data, outputs, limits)
        session = replace(session, logged_in_before=has(LOGGED_IN, host))
        if session.logged_in and not session.logged_in_before:
            note_login(host)
        return session

    def _inside(self, command: str, in_data: bytes, outputs: tuple[Capture, Capture], limits: Limits) -> Session | None:
        """Over a connection of this process; None when ssh is to be asked, and nothing was begun."""
        if not shares() or not self._plain():
            return None
        from ansible_plugins import ssh_library  # noqa: PLC0415  # a fifth of a second that ssh alone doesn't need

        keys = ssh_library.pinned(str(self.get_option("known_hosts"))).get(
            str(self.get_option("host_key_alias")).lower()
        )
        if not keys:
            return None
        login = ssh_library.Login(
            address=str(self.get_option("host")),
            port=int(self.get_option("port") or SSH_PORT),
            user=str(self.get_option("remote_user")),
            host_keys=keys,
            algorithms=tuple(filter(None, str(self.get_option("host_key_algorithms")).split(","))),
            **{name: str(self.get_option(option) or "") for name, option in SECRETS.items()},
        )
        try:
            done = wait_for(ssh_library.begin(login, command, in_data, outputs, limits))
        except ssh_library.Unsure:
            return None
        return Session(done.rc, *outputs, done.heard, done.gave_up, done.seconds)

    def _plain(self) -> bool:
        """Whether nothing is configured but what a connection of this process does as ssh would."""
        return bool(
            self.get_option("ssh_library")
            and self.get_option("known_hosts")
            and self.get_option("remote_user")
            and self.get_option("host_key_checking")
            and self.get_option("ssh_executable") == "ssh"
            and self.get_option("ssh_args")
            == os.environ.get("ANSIBLE_SSH_ARGS")  # no variable of a host says otherwise
            and not any(self.get_option(name) for name in ONLY_SSH)
        )

    def _outside(self, command: str, in_data: bytes, outputs: tuple[Capture, Capture], limits: Limits) -> Session:
        """By a process of ssh."""
        try:
            argv = self._build_command(self.get_option("ssh_executable"), "ssh", str(self.get_option("host")), command)
        except AnsibleError as error:
            if not self.get_option("private_key"):
                raise
            return Session(255, *outputs, Heard(detail=str(error)[:300]), "key")
        with Log() as log:
            stdin = subprocess.PIPE if in_data else subprocess.DEVNULL
            words, options = log.into(argv), {"stdin": stdin, **self._init_shm()}
            follow_up = partial(follow, in_data=in_data, outputs=outputs, log=log, limits=limits)
            try:
                rc, gave_up, seconds = offload(lambda: carry_out(words, options, follow_up))
            except OSError as error:
                raise AnsibleError(f"ssh could not be started: {error.strerror}") from error
            return Session(rc, *outputs, log.heard(), gave_up, seconds)

    def _limits(self, host: str, connect: float, execution: float) -> Limits:
        return Limits(
            connect=connect or float(self.get_option("timeout")),
            execution=execution or float(self.get_option("execution_timeout")) or math.inf,
            stopped=lambda: is_stopped(host) or aborted(),
        )


def cancelled(host: str) -> Session:
    """Instead of an ssh process, for a host that is to be contacted no more."""
    return Session(255, Capture(0), Capture(0), Heard(), "cancelled", logged_in_before=has(LOGGED_IN, host))


def result_of(session: Session) -> dict[str, Any]:
    """A task's result.  `orchestrator` in it holds what only the service reads."""
    out, err = session.stdout, session.stderr
    about = {
        "code": session.code,
        "detail": session.heard.detail if session.code else "",
        "seconds": session.seconds,
        "server": session.heard.server,
        "truncated": out.truncated or err.truncated,
        "bytes_total": out.total + err.total,
        "stdout_bytes_total": out.total,
        "stderr_bytes_total": err.total,
    }
    if not session.logged_in:
        return {"unreachable": True, "changed": False, "msg": message(session), "orchestrator": about}
    result: dict[str, Any] = {
        "changed": True,
        "stdout": out.value().decode(errors="replace"),
        "stderr": err.value().decode(errors="replace"),
        "orchestrator": about,
    }
    if session.code == "cancelled_running":
        return result | {"unreachable": True, "msg": message(session)}
    if session.code:
        return result | {"failed": True, "msg": message(session)}
    if session.rc:
        result |= {"failed": True, "msg": f"The command ended with status {session.rc}."}
    return result | {"rc": session.rc}


def message(session: Session) -> str:
    """What a person at a plain ansible-playbook reads; the service has its own sentences for the code."""
    return f"[orchestrator:{session.code}] {session.heard.detail}"


def raise_unless_ended(session: Session) -> None:
    """For callers that know only rc, stdout and stderr."""
    if session.gave_up == "cancelled":
        raise Stopped(message(session))
    if not session.logged_in:
        raise NotLoggedIn(message(session))
    if session.code:
        raise Broken(message(session))
