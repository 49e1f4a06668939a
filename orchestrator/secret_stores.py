"""External stores of secrets, asked by a worker just before a run: HashiCorp Vault's KV version 2, and files.

What is found goes into the run and nowhere else.  What is not found is the device's reason: another credential is
never taken in its place.
"""

import json
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from django.conf import settings
from django.core.exceptions import ValidationError

from orchestrator.exceptions import SecretLookupError
from orchestrator.models import Credential, CredentialSecrets, Source

_LARGEST: Final = 1 << 20  # bytes of an answer or a file
# Vault's HTTP API: https://developer.hashicorp.com/vault/api-docs#http-status-codes
_STATUS: Final[Mapping[int, str]] = {
    400: "refuses the request: is the token or the role right?",
    403: "denies this service the secret {what}.",
    404: "has no secret {what}.",
    429: "is a standby that answers no requests.",
    500: "has an error of its own.",
    503: "is sealed or under maintenance.",
}
_STORE_IS_DOWN: Final = frozenset({429, 500, 502, 503, 504})


class SecretStore(Protocol):
    """A place where secrets are looked up."""

    def read(self, folder: str, reference: str, *, seconds: float) -> str:
        """The secret that the reference means below the folder, within some seconds.

        Raises:
            StoreDownError: the store as a whole can't be asked.
            SecretLookupError: this secret is not to be had.
        """


class StoreDownError(SecretLookupError):
    """The store of secrets can't be asked."""


class Lookup:
    """The lookups of one slice: each secret is read once, and a store that does not answer is asked no more."""

    def __init__(self, *, seconds: float) -> None:
        self._until = time.monotonic() + seconds  # of all lookups together: the slice's lease does not wait
        self._stores: dict[str, SecretStore] = {}
        self._down: dict[str, SecretLookupError] = {}
        self._known: dict[tuple[str, str, str], str | SecretLookupError] = {}
        self._open: dict[uuid.UUID, CredentialSecrets] = {}

    def secrets(self, credential: Credential) -> CredentialSecrets:
        """The secrets of a credential in the open, from wherever they are.

        Raises:
            SecretUnreadableError: no key of the ring opens them.
            SecretLookupError: an external store does not give them.
        """
        if credential.pk not in self._open:  # many devices have the same
            self._open[credential.pk] = self._secrets(credential)
        return self._open[credential.pk]

    def _secrets(self, credential: Credential) -> CredentialSecrets:
        if credential.source == Source.STORED:
            return credential.secrets()
        folder = credential.organization.secret_folder
        if not folder:
            raise SecretLookupError(f"{credential.organization} has no folder in an external store any more.")
        found = {name: self._find(credential.source, folder, ref) for name, ref in credential.references.items()}
        for name, value in found.items():
            if name != "private_key" and not (value and value.isprintable()):
                raise SecretLookupError(f"What {credential.references[name]} holds can't be entered at a login.")
        try:
            return CredentialSecrets(**found).with_readable_key()
        except ValidationError as error:
            raise SecretLookupError(f"{credential.references['private_key']}: {error.messages[0]}") from error

    def _find(self, source: str, folder: str, reference: str) -> str:
        key = (source, folder, reference)
        if key not in self._known:
            self._known[key] = self._ask(*key)
        known = self._known[key]
        if isinstance(known, SecretLookupError):
            raise known
        return known

    def _ask(self, source: str, folder: str, reference: str) -> str | SecretLookupError:
        if source in self._down:
            return self._down[source]
        seconds = self._until - time.monotonic()
        if seconds <= 0:
            return SecretLookupError("The lookups of secrets took too long all together.")
        try:
            if source not in self._stores:
                self._stores[source] = _store(source)
            return self._stores[source].read(folder, reference, seconds=seconds)
        except StoreDownError as error:
            self._down[source] = error
            return error
        except SecretLookupError as error:
            return error


def configured(source: str) -> bool:
    """Whether this service knows a store of that kind."""
    known = {Source.STORED: True, Source.VAULT: settings.VAULT_ADDRESS, Source.FILE: settings.SECRETS_DIRECTORY}
    return bool(known[Source(source)])


def _store(source: str) -> SecretStore:
    if not configured(source):
        raise StoreDownError(f"This service knows no store of the kind {source!r}; its settings name none.")
    return Vault() if source == Source.VAULT else Files(Path(settings.SECRETS_DIRECTORY))


class Files:
    """One file for each secret, named ``<folder>.<reference>``, as systemd and Docker mount them; "/" becomes "."."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, folder: str, reference: str, *, seconds: float) -> str:
        """The file's text, without the line break at its end.

        Raises:
            SecretLookupError: there is no such file, or it holds no text.
        """
        name = f"{folder.replace('/', '.')}.{reference}"
        try:
            with (self._directory / name).open("rb") as file:
                return file.read(_LARGEST).decode().removesuffix("\n").removesuffix("\r")
        except OSError as error:
            raise SecretLookupError(f"The file {name} can't be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise SecretLookupError(f"The file {name} holds no text.") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """The token is for the server that the settings name."""


class Vault:
    """Vault's KV version 2 over HTTP, with a token or an AppRole; logs in once."""

    def __init__(self) -> None:
        context = ssl.create_default_context(cafile=settings.VAULT_CA or None)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
        )
        self._token: str = settings.VAULT_TOKEN
        self._read: dict[str, Mapping[str, Any]] = {}

    def read(self, folder: str, reference: str, *, seconds: float) -> str:
        """A field of the newest version of a secret.

        Raises:
            StoreDownError: Vault can't be reached, is sealed, or refuses the login.
            SecretLookupError: this secret is not to be had.
        """
        path, _, field = reference.partition("#")
        path = f"{folder}/{path}"
        if path not in self._read:
            self._read[path] = self._secret(path, seconds)
        value = self._read[path].get(field)
        if not isinstance(value, str):
            raise SecretLookupError(f"Vault's secret {path} has no text {field!r}.")
        return value

    def _secret(self, path: str, seconds: float) -> Mapping[str, Any]:
        if not self._token:
            self._token = self._log_in(seconds)
        answer = self._request(f"{settings.VAULT_MOUNT}/data/{path}", seconds=seconds, what=path)
        data = answer.get("data")
        values = data.get("data") if isinstance(data, dict) else None
        if not isinstance(values, dict):
            raise SecretLookupError(f"Vault's secret {path} was deleted, or its engine is not KV version 2.")
        return values

    def _log_in(self, seconds: float) -> str:
        if not settings.VAULT_ROLE_ID:
            raise StoreDownError("The settings give neither a token nor a role for Vault.")
        body = {"role_id": settings.VAULT_ROLE_ID, "secret_id": settings.VAULT_SECRET_ID}
        try:
            answer = self._request("auth/approle/login", seconds=seconds, what="its login", body=body)
            return str(answer["auth"]["client_token"])
        except StoreDownError:
            raise
        except (SecretLookupError, KeyError, TypeError) as error:
            raise StoreDownError("Vault does not accept the role of this service.") from error

    def _request(
        self, path: str, *, seconds: float, what: str, body: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        headers |= {"X-Vault-Token": self._token} if self._token else {}
        headers |= {"X-Vault-Namespace": settings.VAULT_NAMESPACE} if settings.VAULT_NAMESPACE else {}
        request = urllib.request.Request(  # noqa: S310 - the settings take http and https only
            f"{settings.VAULT_ADDRESS.rstrip('/')}/v1/{quote(path)}",
            data=json.dumps(body).encode() if body else None,
            headers=headers,
        )
        try:
            with self._opener.open(request, timeout=min(seconds, settings.VAULT_TIMEOUT)) as reply:
                answer = json.loads(reply.read(_LARGEST))
        except urllib.error.HTTPError as error:
            error.close()
            kind = StoreDownError if error.code in _STORE_IS_DOWN else SecretLookupError
            said = _STATUS.get(error.code, "answers with the status {code}.").format(what=what, code=error.code)
            raise kind(f"Vault {said}") from None  # the error's own text has the headers at hand
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise StoreDownError(f"Vault can't be asked: {str(reason)[:200]}") from None
        if not isinstance(answer, dict):
            raise StoreDownError("What answers at Vault's address is no Vault.")
        return answer
