"""Signing in, and the tokens of who has."""

from collections.abc import Mapping
from typing import Any, cast

from django.contrib.auth import authenticate
from django.contrib.auth.models import update_last_login
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, status
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from orchestrator import actions, audit
from orchestrator.api.authentication import BearerAuthentication, BrowserAuthentication
from orchestrator.api.filters import refuse_parameters
from orchestrator.api.permissions import actor
from orchestrator.api.run_serializers import ErrorSerializer
from orchestrator.api.throttles import SignInAddressThrottle, SignInNameThrottle
from orchestrator.api.token_serializers import (
    NewTokenSerializer,
    OwnTokenSerializer,
    SignInSerializer,
    TokenRequestSerializer,
)
from orchestrator.models import Token, User

_WRONG = "The user name or the password is wrong."


class TokenView(generics.ListAPIView[Token]):
    """Tokens for ``Authorization: Bearer …``: one's own, and new ones."""

    queryset = Token.objects.none()
    serializer_class = OwnTokenSerializer
    methods_for_read_only_tokens = ("DELETE",)  # it gives the token itself back

    def get_authenticators(self) -> list[Any]:
        """What is given back is the token of the request, so only a token will do."""
        given_back = getattr(self.request, "method", "") == "DELETE"  # no request: the schema is being made
        return [BearerAuthentication()] if given_back else [BearerAuthentication(), BrowserAuthentication()]

    def get_permissions(self) -> list[Any]:
        """Nobody has to be signed in to sign in."""
        return [] if self.request.method == "POST" else [IsAuthenticated()]

    def get_throttles(self) -> list[Any]:
        """Passwords can't be tried at will."""
        return [SignInAddressThrottle(), SignInNameThrottle()] if self.request.method == "POST" else []

    def perform_authentication(self, request: Request) -> None:
        """An old token that is sent along does not hinder from signing in again."""
        if request.method != "POST":
            super().perform_authentication(request)

    def get_queryset(self) -> Any:
        """One's own."""
        if getattr(self, "swagger_fake_view", False):
            return super().get_queryset()
        return Token.objects.held_by(actor(self.request))

    @extend_schema(
        request=TokenRequestSerializer,
        responses={
            200: OpenApiResponse(NewTokenSerializer, description="Signed in."),
            201: OpenApiResponse(NewTokenSerializer, description="Made for who is signed in."),
            401: OpenApiResponse(ErrorSerializer, description="Wrong name or password."),
        },
        filters=False,
    )
    def post(self, request: Request) -> Response:
        """Sign in with a user name and a password; or, when signed in already, make another token.

        A token that is made with a limited one has the same limits, and does not outlive it.
        """
        refuse_parameters(request)
        signs_in = _names_somebody(request.data) or not request.user.is_authenticated
        given = (SignInSerializer if signs_in else TokenRequestSerializer)(data=request.data)
        given.is_valid(raise_exception=True)
        user = self._signed_in(request, given.validated_data) if signs_in else actor(request)
        token, text = actions.create_token(actor=user, request=given.token_request(), signs_in=signs_in)
        shown = NewTokenSerializer(token, context={"text": text, "request": request}).data
        headers = {"Cache-Control": "no-store"}  # RFC 6749 section 5.1
        if not signs_in:
            headers["Location"] = reverse("token-detail", args=[token.pk], request=request)
        return Response(shown, status.HTTP_200_OK if signs_in else status.HTTP_201_CREATED, headers=headers)

    def _signed_in(self, request: Request, given: Mapping[str, Any]) -> User:
        user = authenticate(request._request, username=given["username"], password=given["password"])
        if not isinstance(user, User):
            audit.sign_in_failed(given["username"])
            raise AuthenticationFailed(_WRONG)
        update_last_login(type(user), user)
        return user

    @extend_schema(request=None, responses={204: None}, filters=False, operation_id="users_token_give_back")
    def delete(self, request: Request) -> Response:
        """Revoke the token that this request is made with."""
        refuse_parameters(request)
        actions.revoke_token(actor=actor(request), token=cast("Token", request.auth), signs_out=True)
        return Response(status=status.HTTP_204_NO_CONTENT)


class TokenDetailView(APIView):
    """One of one's own tokens."""

    permission_classes = (IsAuthenticated,)

    @extend_schema(responses={200: OwnTokenSerializer})
    def get(self, request: Request, pk: Any) -> Response:
        """What is known of it: all but its text."""
        return Response(OwnTokenSerializer(self._token(request, pk), context={"request": request}).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, pk: Any) -> Response:
        """Revoke it: a program that uses it is signed out at once."""
        actions.revoke_token(actor=actor(request), token=self._token(request, pk))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _token(self, request: Request, pk: Any) -> Token:
        refuse_parameters(request)
        token: Token = get_object_or_404(Token.objects.held_by(actor(request)), pk=pk)
        return token


def _names_somebody(body: Any) -> bool:
    return isinstance(body, Mapping) and ("username" in body or "password" in body)
