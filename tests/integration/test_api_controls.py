"""How a run is paced, stopped, paused, resumed and retried through the API."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from orchestrator.access import Role
from orchestrator.models import Command, CommandType, MassCommand, Slice
from orchestrator.planning import password_change
from orchestrator.playbooks import specification
from tests import factories
from tests.integration.api_addresses import DEVICES, MISSING, PREVIEW, RUNS, UPTIME, case, finish, launch, post

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("outbox")]


@pytest.fixture
def fleet() -> Any:
    """An organization of four devices."""
    organization = factories.organization()
    shared = factories.credential(organization=organization)
    for number in range(4):
        factories.device(organization=organization, name=f"d{number}", credentials=[shared])
    return organization


@pytest.fixture
def operator(api: Any, fleet: Any) -> Any:
    """A client of its operator."""
    return api(factories.user(organization=fleet))


def _later(**delta: float) -> str:
    return (timezone.now() + timedelta(**delta)).isoformat()


GOOD: list[dict[str, Any]] = [
    {"max_concurrency": 1},
    {"max_concurrency": "50%"},
    {"max_concurrency": "12.5%", "ramp": True},
    {"max_errors": 0},
    {"max_errors": "0%"},
    {"max_errors": "100%"},
    {"canary": 1},
    {"canary": "1%"},
    {"pause": 0},
    {"pause": 1.5},
    {"pause": "manual"},
    {"connect_timeout": 5, "execution_timeout": 60.5, "deadline": 3600},
    {"on_conflict": "skip"},
    {"on_conflict": "fail"},
    {"check": True},
]


@pytest.mark.parametrize("controls", GOOD, ids=case)
def test_a_launch_takes_controls_and_shows_them_as_given(operator: Any, fleet: Any, controls: dict[str, Any]) -> None:
    run = launch(operator, organization=str(fleet.pk), **controls)
    shown = operator.get(f"{RUNS}{run['id']}/").json()
    assert {name: shown["controls"][name] for name in controls} == controls
    assert (shown["parent"], shown["paused"], shown["run_at"], shown["deadline"]) == (None, False, None, None)


@pytest.mark.parametrize("kind", CommandType.values)
def test_every_type_can_be_checked(operator: Any, fleet: Any, kind: str) -> None:
    body: dict[str, Any] = {"type": kind, "check": True}
    if kind == CommandType.PLAYBOOK:
        body |= {"playbook": factories.playbook().name, "input": {}}
    else:
        body["input"] = dict(specification(kind).example)
    run = launch(operator, organization=str(fleet.pk), **body)
    assert MassCommand.objects.get(pk=run["id"]).check_mode
    assert run["controls"]["check"] is True


def test_a_check_of_a_password_change_leaves_the_stored_credential(operator: Any, fleet: Any) -> None:
    secret = {"password": "n3w-Secret", "confirm_password": "n3w-Secret"}
    body = {"organization": str(fleet.pk), "type": "change_password", "input": secret}
    earnest, check = (launch(operator, **body, check=flag) for flag in (False, True))
    assert password_change(MassCommand.objects.get(pk=check["id"])) is None
    assert password_change(MassCommand.objects.get(pk=earnest["id"]))


def test_percentages_are_of_the_eligible_devices(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk), max_concurrency="50%", max_errors="25%")
    row = MassCommand.objects.get(pk=run["id"])
    assert (row.max_concurrency, row.max_errors) == (2, 1)


def test_null_controls_are_the_same_as_none(operator: Any, fleet: Any) -> None:
    names = ("max_concurrency", "max_errors", "canary", "pause", "connect_timeout", "execution_timeout", "deadline",
             "run_at", "wait_for_offline_until")  # fmt: skip
    run = launch(operator, organization=str(fleet.pk), **dict.fromkeys(names))
    assert set(run["controls"]) <= {"on_conflict"}


AMOUNTS: list[Any] = [-1, 1.5, True, "5", "5 %", "%", "-5%", "101%", "100.1%", "1e1%", "٥%", "", [], {}, 10**7, 10**400,
                      "1" * 5_000 + "%", "5%\n", "\ud800"]  # fmt: skip
SECONDS: list[Any] = [0, -1, True, "5", "soon", [], {}, 10**9, 10**400]
MOMENTS: list[Any] = ["", "soon", "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "2030-13-01T00:00:00Z", 5, True, [],
                      {}, "9999-12-31T23:59:59-23:59", "2027-01-01"]  # fmt: skip
BAD: dict[str, list[Any]] = {
    "max_concurrency": [0, "0%", "0.00%", *AMOUNTS],
    "canary": [0, "0%", *AMOUNTS],
    "max_errors": AMOUNTS,
    "ramp": ["true", 1, None],
    "check": ["true", 1, None],
    "pause": [-1, 10**6, True, "auto", "5", "", [], {}, 10**400],
    "connect_timeout": SECONDS,
    "execution_timeout": SECONDS,
    "deadline": SECONDS,
    "on_conflict": ["", "wait", "Queue", 1, None, [], {}],
    "run_at": MOMENTS,
    "wait_for_offline_until": MOMENTS,
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values], ids=case
)
def test_each_control_has_an_error_under_its_own_key(operator: Any, fleet: Any, name: str, value: Any) -> None:
    reply = post(operator, RUNS, {**UPTIME, "organization": str(fleet.pk), name: value})
    assert reply.status_code == 400, reply.content
    assert list(reply.json()) == [name]
    assert not MassCommand.objects.exists()


@pytest.mark.parametrize("value", ["1e400", "-1e400"])
@pytest.mark.parametrize("name", ["deadline", "pause", "max_errors"])
def test_a_number_beyond_all_bounds_is_refused(operator: Any, fleet: Any, name: str, value: str) -> None:
    body = f'{{"type": "reboot", "organization": "{fleet.pk}", "{name}": {value}}}'
    reply = operator.generic("POST", RUNS, body, "application/json")
    assert reply.status_code == 400
    assert list(reply.json()) == [name]


def test_waiting_for_offline_devices_ends_after_the_start(operator: Any, fleet: Any) -> None:
    times = {"run_at": _later(hours=2), "wait_for_offline_until": _later(hours=1)}
    body = {**UPTIME, "organization": str(fleet.pk), **times}
    assert list(operator.post(RUNS, body).json()) == ["wait_for_offline_until"]


def test_a_preview_takes_the_controls_of_its_launch(operator: Any, fleet: Any) -> None:
    body = {**UPTIME, "organization": str(fleet.pk), "max_concurrency": "50%"}
    assert operator.post(PREVIEW, body).status_code == 200
    assert list(operator.post(PREVIEW, {**body, "canary": 0}).json()) == ["canary"]


def test_a_run_for_later_is_scheduled(operator: Any, fleet: Any, outbox: Any) -> None:
    run = launch(operator, organization=str(fleet.pk), run_at=_later(hours=1))
    assert run["status"] == "scheduled"
    assert run["run_at"]
    assert outbox == []


def test_one_device_takes_controls_too(operator: Any, fleet: Any) -> None:
    device = fleet.devices.first()
    address = f"{DEVICES}{device.pk}/command/"
    assert operator.post(address, {**UPTIME, "connect_timeout": 5}).status_code == 201
    assert MassCommand.objects.get().connect_timeout == 5
    assert list(operator.post(address, {**UPTIME, "deadline": 0}).json()) == ["deadline"]


# ---------------------------------------------------------------- cancel


def test_cancelling_ends_what_waits_at_once(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    reply = operator.post(f"{RUNS}{run['id']}/cancel/")
    assert reply.status_code == 202
    assert (reply.json()["status"], reply.json()["counts"]["cancelled"]) == ("cancelled", 4)


def test_single_devices_are_cancelled(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    device = fleet.devices.first()
    reply = operator.post(f"{RUNS}{run['id']}/cancel/", {"devices": [str(device.pk)]})
    assert reply.status_code == 202
    assert (reply.json()["counts"]["cancelled"], reply.json()["counts"]["queued"]) == (1, 3)
    assert Command.objects.get(device=device).status == "cancelled"


@pytest.mark.parametrize("value", [[], [MISSING], ["x"], "x", [None], {}], ids=case)
def test_a_wrong_list_of_devices_cancels_nothing(operator: Any, fleet: Any, value: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    reply = operator.post(f"{RUNS}{run['id']}/cancel/", {"devices": value})
    assert reply.status_code == 400
    assert list(reply.json()) == ["devices"]
    assert operator.get(f"{RUNS}{run['id']}/").json()["counts"]["queued"] == 4


def test_cancelling_twice_while_devices_are_stopped_is_no_error(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    slice_ = Slice.objects.get()
    assert Slice.objects.take(slice_.pk, attempt=slice_.attempt, worker="w", seconds=30)
    for _ in range(2):
        reply = operator.post(f"{RUNS}{run['id']}/cancel/")
        assert (reply.status_code, reply.json()["status"]) == (202, "cancelling")


# ---------------------------------------------------------------- pause, resume


def test_a_run_is_paused_and_resumed(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    reply = operator.post(f"{RUNS}{run['id']}/pause/")
    assert (reply.status_code, reply.json()["paused"]) == (200, True)
    assert Slice.objects.get().status == "held"
    reply = operator.post(f"{RUNS}{run['id']}/resume/")
    assert (reply.status_code, reply.json()["paused"]) == (200, False)
    assert Slice.objects.get().status == "queued"


def test_resuming_lets_the_next_wave_begin(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk), max_concurrency=2, pause="manual")
    for slice_ in Slice.objects.filter(wave=1):
        Command.objects.filter(slice=slice_).update(status="success", finished=timezone.now())
        Slice.objects.filter(pk=slice_.pk).update(status="finished")
    assert operator.post(f"{RUNS}{run['id']}/resume/").status_code == 200
    assert set(Slice.objects.filter(wave=2).values_list("status", flat=True)) == {"queued"}


# ---------------------------------------------------------------- retry


def test_a_retry_makes_a_child_run_of_what_failed_with_the_same_controls(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk), max_errors=3, label="weekly", run_at=_later(hours=1))
    finish(run["id"], "failed")
    reply = operator.post(f"{RUNS}{run['id']}/retry/")
    assert reply.status_code == 201
    child = reply.json()
    assert reply["Location"].endswith(f"{child['id']}/")
    assert (child["parent"], child["device_count"], child["label"]) == (run["id"], 4, "weekly")
    assert (child["controls"]["max_errors"], child["run_at"], child["status"]) == (3, None, "queued")


def test_a_retry_takes_up_the_statuses_that_are_named(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    first = Command.objects.order_by("device_name")[0]
    finish(run["id"], "failed")
    Command.objects.filter(pk=first.pk).update(status="unreachable")
    child = operator.post(f"{RUNS}{run['id']}/retry/", {"statuses": ["unreachable"]}).json()
    assert child["device_count"] == 1
    assert Command.objects.get(mass_command=child["id"]).device_name == first.device_name


def test_a_retry_of_nothing_is_refused(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    finish(run["id"])
    reply = operator.post(f"{RUNS}{run['id']}/retry/")
    assert (reply.status_code, list(reply.json())) == (400, ["statuses"])


def test_a_retry_of_too_many_says_what_to_do(operator: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = launch(operator, organization=str(fleet.pk))
    finish(run["id"], "failed")
    monkeypatch.setattr("orchestrator.actions.launching.MAX_PICKED", 3)
    reply = operator.post(f"{RUNS}{run['id']}/retry/")
    told = "4 devices ended so; 3 can be retried at once. Name fewer statuses, or launch again with a filter."
    assert (reply.status_code, reply.json()) == (400, {"statuses": [told]})


@pytest.mark.parametrize("value", [[], ["success"], ["queued"], ["x"], "failed", None, [1]], ids=case)
def test_a_retry_names_statuses_that_can_be_retried(operator: Any, fleet: Any, value: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    finish(run["id"], "failed")
    reply = operator.post(f"{RUNS}{run['id']}/retry/", {"statuses": value})
    assert (reply.status_code, list(reply.json())) == (400, ["statuses"])


def test_a_retry_of_a_password_change_needs_the_password_again(operator: Any, fleet: Any) -> None:
    secret = {"password": "n3w-Secret", "confirm_password": "n3w-Secret"}
    run = launch(operator, organization=str(fleet.pk), type="change_password", input=secret)
    finish(run["id"], "failed")
    address = f"{RUNS}{run['id']}/retry/"
    assert list(operator.post(address).json()) == ["input"]
    reply = operator.post(address, {"input": secret})
    assert reply.status_code == 201
    assert b"n3w" not in reply.content


def test_a_device_that_was_moved_away_is_not_retried(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    finish(run["id"], "failed")
    fleet.devices.filter(name="d0").update(organization=factories.organization())
    assert operator.post(f"{RUNS}{run['id']}/retry/").json()["device_count"] == 3


# ---------------------------------------------------------------- states and rights

ACTIONS = ["cancel", "pause", "resume", "retry"]


@pytest.mark.parametrize(
    ("action", "over", "code"),
    [
        ("cancel", True, "not_active"),
        ("pause", True, "not_active"),
        ("resume", True, "not_active"),
        ("retry", False, "still_active"),
    ],
)
def test_a_state_that_forbids_it_is_409(operator: Any, fleet: Any, action: str, over: bool, code: str) -> None:
    run = launch(operator, organization=str(fleet.pk))
    if over:
        finish(run["id"])
    reply = operator.post(f"{RUNS}{run['id']}/{action}/")
    assert reply.status_code == 409
    assert reply.json()["code"] == code


@pytest.mark.parametrize("action", ACTIONS)
def test_a_control_refuses_fields_that_it_does_not_have(operator: Any, fleet: Any, action: str) -> None:
    run = launch(operator, organization=str(fleet.pk))
    reply = operator.post(f"{RUNS}{run['id']}/{action}/", {"force": True})
    assert (reply.status_code, reply.json()) == (400, {"force": ["Unknown field."]})


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("role", "status"), [(Role.VIEWER, 403), (None, 404)], ids=["viewer", "stranger"])
def test_viewers_and_strangers_control_nothing(
    api: Any, operator: Any, fleet: Any, action: str, role: Role | None, status: int
) -> None:
    run = launch(operator, organization=str(fleet.pk))
    home = fleet if role else factories.organization()
    who = factories.user(organization=home, role=role or Role.ADMINISTRATOR)
    assert api(who).post(f"{RUNS}{run['id']}/{action}/").status_code == status
    assert MassCommand.objects.get().status == "queued"
