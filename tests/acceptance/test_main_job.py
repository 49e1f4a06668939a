"""The main job on real devices, through the REST API: real Redis, real workers, real Ansible, real SSH."""

import http.server
import json
import queue
import threading
from typing import Any

import pytest

from tests.acceptance.conftest import World

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(180)]


def test_uptime_on_all_devices_tells_each_ones_output(world: World) -> None:
    body: dict[str, Any] = {"organization": world.organization, "type": "custom", "input": {"command": "uptime"}}
    preview = world.service.post("controller/batch-command/confirmation/", body)
    assert preview["eligible_count"] == len(world.devices)
    run = world.service.run(**body, digest=preview["digest"])
    assert run["status"] == "success", run["rows"]
    assert all("load average" in row["stdout"] and row["rc"] == 0 for row in run["rows"].values())


def test_stdout_stderr_and_rc_are_told_apart(world: World) -> None:
    run = world.service.run(
        devices=world.ids("openwrt1", "linux1"),
        type="custom",
        input={"command": "printf 'to out'; printf 'to err' >&2; exit 255"},
    )
    for row in run["rows"].values():
        assert (row["status"], row["rc"], row["stdout"], row["stderr"]) == ("failed", 255, "to out", "to err")
    assert run["status"] == "failed"


def test_a_reboot_succeeds_when_the_device_is_back(world: World) -> None:
    names = ("openwrt2", "linux2")
    before = {name: world.lab.devices()[name].boots for name in names}
    run = world.service.run(devices=world.ids(*names), type="reboot")
    assert run["status"] == "success", run["rows"]
    assert all(world.lab.devices()[name].boots == before[name] + 1 for name in names)


@pytest.mark.parametrize("password", ['n3w $(reboot) `id` {{ 7*7 }} "quoted" \'é%s:\\', "simple-1"])
def test_a_changed_password_is_set_exactly_and_the_credential_follows(world: World, password: str) -> None:
    names = ("openwrt3", "linux1")
    run = world.service.run(
        devices=world.ids(*names),
        type="change_password",
        input={"password": password, "confirm_password": password},
    )
    assert run["status"] == "success", run["rows"]
    assert password not in str(run)
    again = world.service.run(devices=world.ids(*names), type="custom", input={"command": "id -un"})
    assert [row["stdout"].strip() for row in again["rows"].values()] == ["root", "root"], again["rows"]


def test_an_unplugged_device_is_unreachable_and_the_others_succeed(world: World) -> None:
    world.lab.power("openwrt4", "off")
    world.lab.wait_until("openwrt4", "off")
    try:
        run = world.service.run(devices=world.ids("openwrt4", "openwrt5"), type="custom", input={"command": "hostname"})
    finally:
        world.lab.power("openwrt4", "on")
        world.lab.wait_until("openwrt4", "up")
    assert run["status"] == "partial"
    assert run["rows"]["openwrt4"]["status"] == "unreachable"
    assert run["rows"]["openwrt4"]["reason"]
    assert run["rows"]["openwrt5"]["stdout"] == "openwrt5\n"


def test_a_webhook_is_told_of_the_end_and_nothing_that_a_device_said(world: World) -> None:
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    body = {"organization": world.organization, "name": "here", "url": url, "events": ["run.finished"]}
    webhook = world.service.post("controller/webhook/", body, expect=201)
    try:
        run = world.service.run(devices=world.ids("openwrt5"), type="custom", input={"command": "echo overheard"})
        message = told.get(timeout=30)
    finally:
        world.service.http.delete(f"controller/webhook/{webhook['id']}/")
        server.shutdown()
        thread.join()
        server.server_close()
    assert b"overheard" not in message
    data = json.loads(message)["data"]
    assert (data["id"], data["status"], data["counts"]["success"]) == (run["id"], "success", 1)
