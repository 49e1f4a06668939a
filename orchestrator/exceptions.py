"""What can go wrong, in the words that a client reads.  One base, one handler (api/errors.py).

A child's docstring is its default message; ``code`` is for programs, ``http_status`` for the reply.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class OrchestratorError(Exception):
    """The request could not be carried out."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 400

    def __init__(self, detail: str = "", **extra: Any) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.extra: Mapping[str, Any] = extra
        super().__init__(self.detail)


class InvalidFieldError(OrchestratorError):
    """A field of the request is not valid."""

    code = "invalid"

    def __init__(self, field: str, message: str | Mapping[str, Any]) -> None:
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}")


class MalformedBodyError(OrchestratorError):
    """The body is not valid JSON."""

    code = "parse_error"


class TooLargeError(OrchestratorError):
    """The body is larger than this service takes."""

    code = "too_large"
    http_status = 413


class NoTargetsError(OrchestratorError):
    """No device matches these targets; nothing was created."""

    code = "no_targets"


class NotPermittedError(OrchestratorError):
    """You do not have the right to do this."""

    code = "permission_denied"
    http_status = 403


class TargetsChangedError(OrchestratorError):
    """The targets are no longer the ones that were previewed. Preview again, then launch with the new digest."""

    code = "targets_changed"
    http_status = 409


class CountChangedError(OrchestratorError):
    """The targets are not as many as expected. Preview again, then launch with the new count."""

    code = "count_changed"
    http_status = 409


class KeyReusedError(OrchestratorError):
    """This Idempotency-Key was used for another request. Use a new one for each launch."""

    code = "idempotency_key_reused"
    http_status = 422


class RunDeletedError(OrchestratorError):
    """The mass command that this Idempotency-Key has started was deleted. Use a new key to launch again."""

    code = "run_deleted"
    http_status = 409


class StillActiveError(OrchestratorError):
    """The mass command has not finished. Wait for its end, or cancel it first."""

    code = "still_active"
    http_status = 409


class StillPendingError(OrchestratorError):
    """The delivery is still on its way."""

    code = "still_pending"
    http_status = 409


class NotActiveError(OrchestratorError):
    """The mass command has ended already."""

    code = "not_active"
    http_status = 409


class PlaybookGoneError(OrchestratorError):
    """The version of the playbook that was launched is not on this machine. Refresh its catalogue, and launch again."""

    code = "playbook_gone"
    http_status = 409


class VaultUnreadableError(OrchestratorError):
    """The password of a vault that the playbook's directory has can't be read."""

    code = "vault_unreadable"
    http_status = 500


class HostKeyChangedError(OrchestratorError):
    """The device shows another host key than the pinned or accepted one. If that is right, accept its fingerprint."""

    code = "host_key_changed"
    http_status = 409


class DeviceUnreachableError(OrchestratorError):
    """The device did not answer with a host key."""

    code = "device_unreachable"
    http_status = 502


class SecretLookupError(OrchestratorError):
    """An external store of secrets did not give a secret."""

    code = "secret_lookup"
    http_status = 502


class InventoryUnreadableError(OrchestratorError):
    """Ansible can't read this inventory."""

    code = "inventory_unreadable"


class SecretUnreadableError(OrchestratorError):
    """A stored secret can't be opened with the keys of this service. Is ORCHESTRATOR_SECRET_KEYS complete?"""

    code = "secret_unreadable"
    http_status = 500
