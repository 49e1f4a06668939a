"""The run engine on real devices: what each device's result says, and how a run ends."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from orchestrator.events import HostEvent
from tests.integration.engine import Engine, Result, ssh_clients, until

pytestmark = pytest.mark.lab

OUTPUT_LIMIT = 256 * 1024  # bytes, the setting's default
SHORT = {"connect": 2.0, "execution": 3.0}  # seconds


# ---------------------------------------------------------------- faults
@pytest.fixture(scope="module", params=[(True, 0), (True, 1), (False, 0)], ids=["fast path", "library", "slow path"])
def sick(engine_lab: Engine, request: pytest.FixtureRequest) -> Result:
    """One run over devices of which each has something else."""
    lab, target = engine_lab.lab, engine_lab.target
    for name, fault in {"openwrt1": "refuse", "openwrt2": "blackhole", "openwrt3": "mute", "linux1": "hang"}.items():
        lab.fault(name, fault)
    lab.fault("openwrt4", "slow", 0.05)
    lab.power("openwrt5", "off")
    lab.wait_until("openwrt5", "off")
    targets = [target(f"openwrt{number}") for number in range(1, 6)]
    targets += [target("openwrt6", password="not this one"), target("linux1"), target("linux2")]
    targets += [target("openwrt7", host_key=engine_lab.device("openwrt6").hostkey)]
    try:
        with override_settings(FAST_PATH=request.param[0], SSH_LIBRARY_FROM=request.param[1]):
            return engine_lab.run(engine_lab.request(targets, command="hostname", limits=SHORT))
    finally:
        engine_lab.heal()


@pytest.mark.parametrize(
    ("name", "status", "code", "words"),
    [
        ("openwrt1", "unreachable", "refused", "refused the connection"),
        ("openwrt2", "unreachable", "timeout", "did not answer within 2 s"),
        ("openwrt3", "unreachable", "timeout", "did not answer within 2 s"),
        ("openwrt4", "success", "", ""),
        ("openwrt5", "unreachable", "refused", "refused the connection"),
        ("openwrt6", "unreachable", "auth", "did not accept the login"),
        ("openwrt7", "unreachable", "host_key", "host key that is pinned"),
        ("linux1", "timed_out", "execution_timeout", "longer than 3 s"),
        ("linux2", "success", "", ""),
    ],
)
def test_each_fault_has_its_status_and_a_reason_for_people(
    sick: Result, name: str, status: str, code: str, words: str
) -> None:
    event = sick.finished[name]
    assert (event.status, event.code) == (status, code), event
    assert words in event.reason
    assert (event.rc, event.stdout) == ((0, f"{name}\n") if status == "success" else (None, ""))
    assert "ansible" not in event.reason.lower()


def test_healthy_devices_wait_for_sick_ones_only_as_long_as_the_limits_and_forks_make_them(engine: Engine) -> None:
    sick_ones, healthy = ("openwrt1", "openwrt2", "openwrt3"), ("openwrt4", "openwrt5", "linux1")
    for name in sick_ones:
        engine.lab.fault(name, "blackhole")
    result = engine.custom("hostname", *sick_ones, *healthy, limits=SHORT, forks=2)
    ended = {name: event.at for name, event in result.finished.items()}
    assert [result.finished[name].status for name in healthy] == ["success"] * 3
    # Two at a time: the second one frees its fork after 2 s, the third after 4.
    assert min(ended[name] for name in healthy) < ended["openwrt3"]
    assert (max(ended[name] for name in healthy) - ended["openwrt1"]).total_seconds() < 2 + 4


def test_a_run_with_sick_devices_is_complete_and_takes_no_longer_than_the_limits(sick: Result) -> None:
    assert sick.outcome.ended == "completed"
    assert len(sick.started) == len(sick.finished) == 9
    assert sick.seconds < 25  # the start of Ansible, on a busy machine, and three times the limits


def test_a_connection_that_is_cut_in_mid_command_is_a_failure_and_not_unreachable(engine: Engine) -> None:
    def cut() -> None:
        until(lambda: engine.exists("openwrt1", "/tmp/cut"))
        engine.lab.fault("openwrt1", "cut")

    thread = threading.Thread(target=cut)
    thread.start()
    event = engine.custom("touch /tmp/cut; sleep 9", "openwrt1").finished["openwrt1"]
    thread.join()
    assert (event.status, event.code, event.rc) == ("failed", "connection_lost", None)


def test_a_reboot_is_a_success_when_the_device_is_back_and_else_a_failure(engine: Engine) -> None:
    engine.lab.fault("openwrt2", "noreturn")
    engine.lab.fault("linux2", "bootdelay", 1)
    boots = {name: device.boots for name, device in engine.lab.devices().items()}
    names = ("openwrt1", "openwrt2", "linux2")
    targets = [engine.target(name) for name in names]
    done = engine.run(engine.request(targets, "reboot", reboot_timeout=9)).finished
    assert {name: str(done[name].status) for name in names} == {
        "openwrt1": "success", "openwrt2": "failed", "linux2": "success",
    }, done  # fmt: skip
    assert done["openwrt2"].code == "no_return"
    assert {name: engine.device(name).boots - boots[name] for name in names} == dict.fromkeys(names, 1) | {
        "openwrt2": 0
    }


def test_a_connection_is_tested_without_changing_anything(engine: Engine) -> None:
    targets = [engine.target("openwrt1"), engine.target("linux1"), engine.target("openwrt2", password="another one")]
    done = engine.run(engine.request(targets, "ping")).finished
    assert {name: (str(done[name].status), done[name].code) for name in done} == {
        "openwrt1": ("success", ""), "linux1": ("success", ""), "openwrt2": ("unreachable", "auth"),
    }  # fmt: skip
    assert done["linux1"].stdout.startswith("Linux ")


def test_a_full_disk_fails_a_password_change_and_the_old_one_stays(engine: Engine) -> None:
    # BusyBox's passwd removes the backup of an earlier change first: that would make room for the new file.
    engine.lab.exec("openwrt1", "rm", "-f", "/etc/shadow-")
    engine.lab.fault("openwrt1", "diskfull")
    request = engine.request([engine.target("openwrt1")], "change_password", new_password="never-Set-1")
    event = engine.run(request).finished["openwrt1"]
    assert (event.status, event.code) == ("failed", "not_changed")
    assert not engine.login("openwrt1", "never-Set-1")


# ---------------------------------------------------------------- results
def test_stdout_stderr_and_exit_status_are_kept_apart_also_255(engine: Engine) -> None:
    done = engine.custom("printf 'to out'; printf 'to err' >&2; exit 255", "openwrt1", "linux1").finished
    for event in done.values():
        assert (event.status, event.code, event.rc) == ("failed", "exit_status", 255)
        assert (event.stdout, event.stderr, event.bytes_total) == ("to out", "to err", 12)
        assert event.reason == "The command ended with status 255."


def test_output_that_is_no_text_becomes_text_that_a_database_takes(engine: Engine) -> None:
    event = engine.custom(r"printf 'a\377b\000c\033[31mé\r\n'", "openwrt1").finished["openwrt1"]
    assert event.stdout == "a\ufffdb\ufffdc\x1b[31mé\r\n"
    assert event.status == "success"


def test_three_megabytes_of_output_are_cut_in_the_middle(engine: Engine) -> None:
    command = "echo HEAD; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo TAIL"
    event = engine.custom(command, "openwrt1").finished["openwrt1"]
    assert (event.status, event.truncated, event.bytes_total) == ("success", True, 3_000_011)
    assert event.stdout.startswith("HEAD\nxxx")
    assert event.stdout.endswith("xxx\nTAIL\n")
    assert f"[... {3_000_011 - OUTPUT_LIMIT} bytes left out ...]" in event.stdout
    assert len(event.stdout) < OUTPUT_LIMIT + 100


@pytest.mark.parametrize("name", ["openwrt1", "linux1"])
def test_what_runs_on_in_the_background_holds_nothing_up(engine: Engine, name: str) -> None:
    result = engine.custom("sleep 60 & echo on", name, limits={"execution": 20.0})
    assert result.finished[name].stdout == "on\n"
    assert result.seconds < 12


def test_an_execution_timeout_leaves_no_ssh_behind(engine: Engine) -> None:
    device, left = engine.device("openwrt1"), []

    def hear(event: HostEvent) -> None:
        if event.kind == "finished" and event.host_name == "openwrt1":
            left.extend(ssh_clients(device))

    targets = [engine.target("openwrt1"), engine.target("openwrt2")]
    command = "[ $(hostname) = openwrt2 ] && sleep 4 || sleep 60"
    result = engine.run(engine.request(targets, command=command, limits={"execution": 2.0}), hear=hear)
    assert left == []
    assert result.finished["openwrt1"].status == "timed_out"


# ---------------------------------------------------------------- check mode
@pytest.mark.parametrize(
    ("playbook", "variables", "would"),
    [
        ("custom", {"command": "touch /tmp/checked"}, "run: touch /tmp/checked"),
        ("change_password", {"new_password": "never-Set-2"}, "set the password of root"),
        ("reboot", {"reboot_timeout": 30}, "reboot, and wait up to 30 s for the device to come back"),
    ],
)
def test_check_mode_logs_in_and_touches_nothing(
    engine: Engine, playbook: str, variables: dict[str, Any], would: str
) -> None:
    names = ("openwrt1", "linux1")
    before = {name: _state(engine, name) for name in names}
    targets = [engine.target(name) for name in names] + [engine.target("openwrt2", password="wrong one")]
    done = engine.run(engine.request(targets, playbook, check=True, **variables)).finished
    for name in names:
        event = done[name]
        assert (event.status, event.code, event.reason) == ("success", "check_mode", f"check mode: would {would}")
        assert (event.rc, event.stdout, event.stderr) == (None, "", "")
    assert (done["openwrt2"].status, done["openwrt2"].code) == ("unreachable", "auth")
    time.sleep(2)  # a reboot would begin a second later
    assert {name: _state(engine, name) for name in names} == before


def _state(engine: Engine, name: str) -> tuple[Any, ...]:
    return engine.device(name).boots, engine.lab.exec(name, "cat", "/etc/shadow"), engine.exists(name, "/tmp/checked")


# ---------------------------------------------------------------- how runs end
def test_no_targets_are_no_run(engine: Engine) -> None:
    assert engine.run(engine.request([], command="id")).outcome.ended == "completed"


def test_the_deadline_ends_a_run(engine: Engine, isolation: bool) -> None:
    result = engine.custom("sleep 60", "openwrt1", limits={"execution": 60.0, "deadline": 8.0})
    assert result.outcome.ended == "deadline"
    assert result.seconds < 12
    assert (result.started, result.finished) == (["openwrt1"], {})
    assert ssh_clients(engine.device("openwrt1")) == []


def test_an_error_of_the_listener_ends_the_run_and_is_raised(engine: Engine, isolation: bool) -> None:
    def hear(event: HostEvent) -> None:
        raise LookupError("the database is gone")

    request = engine.request([engine.target("openwrt1")], command="sleep 60")
    with pytest.raises(LookupError, match="the database is gone"):
        engine.run(request, hear=hear)
    assert ssh_clients(engine.device("openwrt1")) == []


def test_a_playbook_that_ansible_cannot_run_is_a_crash_with_ansibles_own_words(engine: Engine, tmp_path: Path) -> None:
    playbook = tmp_path / "broken.yml"
    playbook.write_text("- hosts: all\n  tasks:\n    - no_such_module: {}\n")
    result = engine.run(engine.request([engine.target("openwrt1")], playbook))
    assert (result.outcome.ended, result.started) == ("crashed", [])
    assert "no_such_module" in result.outcome.detail


@pytest.mark.parametrize("name", ["ansible_host", "orchestrator_platform", "not a name", "ansible_ssh_common_args"])
def test_a_variable_must_not_change_how_ansible_connects(engine: Engine, name: str) -> None:
    request = replace(engine.request([engine.target("openwrt1")]), variables={"command": "id", name: "x"})
    with pytest.raises(ValueError, match="may not be named"):
        engine.run(request)


def test_an_attempt_cannot_be_begun_twice(engine: Engine) -> None:
    request = engine.request([engine.target("openwrt1")], command="hostname")

    def hear(event: HostEvent) -> None:
        with pytest.raises(OSError, match="not empty"):
            engine.run(request)

    assert engine.run(request, hear=hear).finished["openwrt1"].status == "success"
