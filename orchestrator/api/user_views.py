"""Signing in."""

from typing import Any

from django.contrib.auth import authenticate
from django.contrib.auth.models import update_last_login
from drf_spectacular.utils import OpenApiResponse, extend_schema
from knox.models import get_token_model
from rest_framework import serializers, status
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from orchestrator.api.authentication import BearerAuthentication
from orchestrator.api.fields import StrictSerializer, TextField
from orchestrator.api.run_serializers import ErrorSerializer
from orchestrator.api.throttles import SignInAddressThrottle, SignInNameThrottle


class SignInSerializer(StrictSerializer):
    """Who signs in."""

    username = TextField(max_length=150)
    password = TextField(max_length=1_024, trim_whitespace=False)


class TokenSerializer(serializers.Serializer[Any]):
    """The token, which is shown this once, and when it expires."""

    token = serializers.CharField()
    expiry = serializers.DateTimeField(allow_null=True)


class TokenView(APIView):
    """Tokens for ``Authorization: Bearer …``."""

    authentication_classes = (BearerAuthentication,)

    def get_permissions(self) -> list[Any]:
        """Only who has a token can give it back."""
        return [IsAuthenticated()] if self.request.method == "DELETE" else []

    def get_throttles(self) -> list[Any]:
        """Passwords can't be tried at will."""
        return [SignInAddressThrottle(), SignInNameThrottle()] if self.request.method == "POST" else []

    def perform_authentication(self, request: Request) -> None:
        """An old token that is sent along does not hinder from signing in again."""
        if request.method == "DELETE":
            super().perform_authentication(request)

    @extend_schema(
        auth=[],
        request=SignInSerializer,
        responses={200: TokenSerializer, 401: OpenApiResponse(ErrorSerializer, description="Wrong name or password.")},
    )
    def post(self, request: Request) -> Response:
        """Sign in with a user name and a password."""
        given = SignInSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user = authenticate(request._request, **given.validated_data)
        if user is None:
            raise AuthenticationFailed("The user name or the password is wrong.")
        instance, token = get_token_model().objects.create(user=user)
        update_last_login(type(user), user)
        shown = TokenSerializer({"token": token, "expiry": instance.expiry}).data
        return Response(shown, headers={"Cache-Control": "no-store"})  # RFC 6749 section 5.1

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request) -> Response:
        """Revoke the token that this request is made with."""
        request.auth.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)
