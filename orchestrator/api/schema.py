"""The OpenAPI schema says what errors each address may answer with, and that unknown fields are refused."""

from typing import Any, Final, Literal

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiResponse

from orchestrator.api.fields import StrictSerializer
from orchestrator.api.run_serializers import ErrorSerializer

_FIELD_ERRORS: Final = {
    "type": "object",
    "description": "What is wrong, by field; or code and detail where it belongs to no field.",
    "additionalProperties": {},
    "example": {"organization": ["There is no such organization."]},
}
_ERRORS: Final = {
    "401": "Not signed in.",
    "403": "The role does not allow this.",
    "404": "There is no such row, for this user.",
    "406": "JSON is the only type of replies.",
    "413": "The body is too large.",
    "415": "JSON is the only type of bodies.",
    "429": "Too many requests; Retry-After tells when to come back.",
    "503": "The database does not answer; Retry-After tells when to come back.",
}


class Schema(AutoSchema):
    """drf-spectacular's own knows of successes only."""

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        for code in self._error_codes():
            if code not in bodies:
                made = self._get_response_for_code(self._error(code), code, direction=direction)  # type: ignore[no-untyped-call]
                bodies[code] = made
        return {code: bodies[code] for code in sorted(bodies)}

    def _error(self, code: str) -> OpenApiResponse:
        if code in _ERRORS and not (code == "404" and self._is_paged()):  # a missing page is an error of "page"
            return OpenApiResponse(ErrorSerializer, description=_ERRORS[code])
        return OpenApiResponse(_FIELD_ERRORS, description="The request is not valid.")

    def _error_codes(self) -> list[str]:
        codes = ["406", "429", "503"]
        if self.get_auth():
            codes.append("401")
        if self.method not in ("GET", "HEAD"):
            codes.append("403")
        if "{" in self.path:
            codes.append("404")
        if self.method in ("POST", "PUT", "PATCH"):
            codes += ["400", "413", "415"]
        if self._is_paged():
            codes += ["400", "404"]
        return codes

    def _is_paged(self) -> bool:
        return any(parameter["name"] == "page" for parameter in self._get_parameters())

    def _map_basic_serializer(self, serializer: Any, direction: str) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if direction == "request" and isinstance(serializer, StrictSerializer):
            schema["additionalProperties"] = False
        if direction == "response":
            for field in schema.get("properties", {}).values():
                if field.get("format") == "email":
                    del field["format"]  # where there is none it is "", which is no address
        return schema


def link(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """What was made is linked to what can be done with it (OpenAPI links): for clients, and for tests that follow."""
    operations = [
        (path, method, operation)
        for path, methods in result["paths"].items()
        for method, operation in methods.items()
        if isinstance(operation, dict) and "responses" in operation
    ]
    for made_at, method, maker in operations:
        collection = made_at.removesuffix("{id}/retry/")  # which makes another run
        response = maker["responses"].get("201") if method == "post" else None
        if response is None or "{" in collection:
            continue
        response["links"] = {
            operation["operationId"]: {
                "operationId": operation["operationId"], "parameters": {"id": "$response.body#/id"},
            }
            for path, _, operation in operations
            if path.startswith(f"{collection}{{id}}/")
        }  # fmt: skip
    return result
