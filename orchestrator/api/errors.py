"""Every error of the API as JSON: keyed by field, or ``{"code", "detail"}``.  The one handler."""

import logging
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.urls import is_valid_path
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback

from orchestrator.exceptions import InvalidFieldError, MalformedBodyError, OrchestratorError, TooLargeError

log = logging.getLogger(__name__)

_INTERNAL = {"code": "internal_error", "detail": "The service made a mistake. Its log has the details."}
_UNAVAILABLE = {"code": "unavailable", "detail": "The database does not answer. Try again in some seconds."}
_ENTRIES: Final = 100  # fields, or items of a list, of which the errors are told
_LENGTH: Final = 500  # characters of a message: those that repeat the input would repeat megabytes
# What Django itself says of a request that it can't read (a form with a forged length, for example).
_UNREADABLE: Final = (SuspiciousOperation, BadRequest, MultiPartParserError, UnreadablePostError)


def handle(error: Exception, context: Mapping[str, Any]) -> Response:
    """The reply to a failed request; a mistake of our own is logged and says no more than that."""
    if isinstance(error, _UNREADABLE):
        error = TooLargeError() if isinstance(error, RequestDataTooBig) else MalformedBodyError()
    if isinstance(error, OrchestratorError):
        set_rollback()
        return Response(_presentable(_of_ours(error)), status=error.http_status)
    if isinstance(error, InterfaceError | OperationalError):
        log.error("The database can't be used", exc_info=error)
        set_rollback()
        return Response(_UNAVAILABLE, status=status.HTTP_503_SERVICE_UNAVAILABLE, headers={"Retry-After": "5"})
    if isinstance(error, ModelValidationError):
        error = exceptions.ValidationError(detail=_messages(error))
    response = exception_handler(error, dict(context))
    if response is None:
        log.error("A request failed", exc_info=error)
        set_rollback()
        return Response(_INTERNAL, status=status.HTTP_500_INTERNAL_SERVER_ERROR)
    response.data = _presentable(_shaped(error, response.data))
    return response


def _of_ours(error: OrchestratorError) -> dict[str, Any]:
    if isinstance(error, InvalidFieldError):
        return {error.field: error.message if isinstance(error.message, Mapping) else [error.message]}
    return {"code": error.code, "detail": error.detail, **error.extra}


def _messages(error: ModelValidationError) -> Any:
    return error.message_dict if hasattr(error, "error_dict") else error.messages


def _shaped(error: Exception, data: Any) -> Any:
    if isinstance(data, list):
        return {"code": "invalid", "detail": " ".join(str(item) for item in data)}
    if isinstance(data, dict) and set(data) == {"non_field_errors"}:
        return {"code": "invalid", "detail": " ".join(str(item) for item in data["non_field_errors"])}
    if isinstance(data, dict) and set(data) == {"detail"} and not isinstance(data["detail"], list):
        return {"code": _code(error), "detail": str(data["detail"])}
    return data


def _presentable(data: Any) -> Any:
    """The same in text that JSON can carry: no lone surrogates, and no megabytes of repeated input."""
    if isinstance(data, Mapping):
        return {_presentable(str(name)): _presentable(value) for name, value in islice(data.items(), _ENTRIES)}
    if isinstance(data, list | tuple):
        return [_presentable(item) for item in data]
    if isinstance(data, str):
        text = data if len(data) <= _LENGTH else data[:_LENGTH] + "…"
        return text.encode(errors="replace").decode()
    return data


def _code(error: Exception) -> str:
    if isinstance(error, Http404):
        return "not_found"
    if isinstance(error, PermissionDenied):
        return "permission_denied"
    codes = error.get_codes() if isinstance(error, exceptions.APIException) else None
    return codes if isinstance(codes, str) else "error"


def _is_api(request: HttpRequest) -> bool:
    return request.path == "/api" or request.path.startswith("/api/")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404 outside of any view."""
    if not _is_api(request):
        return defaults.page_not_found(request, exception)
    return JsonResponse({"code": "not_found", "detail": "There is nothing at this address."}, status=404)


@csrf_exempt  # it changes nothing, and a program has no CSRF token
def without_slash(request: HttpRequest) -> HttpResponse:
    """An address of ours without its last slash: 308 keeps the method, where Django's 301 turns a launch into a list.

    Raises:
        Http404: with a slash there is nothing either.
    """
    if not is_valid_path(f"{request.path_info}/"):
        raise Http404
    address = request.get_full_path(force_append_slash=True)
    body = {"code": "moved", "detail": "The address ends in a slash."}
    return JsonResponse(body, status=308, headers={"Location": address})


def server_error(request: HttpRequest) -> HttpResponse:
    """500 outside of any view."""
    return JsonResponse(_INTERNAL, status=500) if _is_api(request) else defaults.server_error(request)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400 outside of any view: a forged host name, for example."""
    if not _is_api(request):
        return defaults.bad_request(request, exception)
    return JsonResponse({"code": "bad_request", "detail": "The request is not valid."}, status=400)
