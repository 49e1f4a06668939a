"""A database that does not answer is 503 with Retry-After, and no mistake of the service."""

from typing import Any

import pytest
from django.db import InterfaceError, OperationalError
from drf_spectacular.generators import SchemaGenerator

from orchestrator.api.fleet_views import DeviceViewSet
from tests import factories
from tests.integration.api_addresses import DEVICES, RUNS

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_that_does_not_answer_is_503(
    api: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any, error: type[Exception]
) -> None:
    client = api(factories.superuser())

    def fail(*_: Any, **__: Any) -> None:
        raise error("connection to server at 10.0.0.7 failed")

    with monkeypatch.context() as patch:
        patch.setattr(DeviceViewSet, "get_queryset", fail)
        patch.setattr("orchestrator.actions.launch", fail)
        replies = [client.get(DEVICES), client.post(RUNS, {"type": "reboot", "all_devices": True})]
    for reply in replies:
        assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
        assert int(reply["Retry-After"]) > 0
        assert b"10.0.0.7" not in reply.content
    assert "10.0.0.7" in caplog.text
    assert client.get(DEVICES).status_code == 200


def test_the_schema_says_so_of_every_address() -> None:
    described = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert "503" in operation["responses"], f"{method} {path}"
