"""API tokens in JSON."""

from typing import Any, Final

from rest_framework import serializers

from orchestrator.actions import TokenRequest
from orchestrator.api.control_serializers import FutureField
from orchestrator.api.fields import IdField, LineField, StrictBooleanField, StrictSerializer, TextField
from orchestrator.models import Token
from orchestrator.models.tokens import NAME_LENGTH

_SIGN_IN: Final = "sign-in"  # the name of a token that was given none


class TokenRequestSerializer(StrictSerializer):
    """A token to make: with a user name and a password to sign in, or without for who is signed in."""

    username = TextField(max_length=150, required=False)
    password = TextField(max_length=1_024, required=False, trim_whitespace=False)
    name: Any = LineField(
        max_length=NAME_LENGTH, required=False, help_text="What it is for; required unless one signs in."
    )
    organization = IdField(
        required=False, allow_null=True, default=None, help_text="The only one that is to exist for the token."
    )
    read_only: Any = StrictBooleanField(required=False, default=False, help_text="Whether it may change nothing.")
    expiry = FutureField(help_text="When it ends; at the latest, and unless told, after ORCHESTRATOR_TOKEN_HOURS.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """A token without a name is one that nobody dares to revoke."""
        if "name" not in attrs:
            if not self.fields["username"].required:
                raise serializers.ValidationError({"name": ["Say what the token is for."]})
            attrs["name"] = _SIGN_IN
        return attrs

    def token_request(self) -> TokenRequest:
        """The request, once the data was found valid."""
        return TokenRequest(**{name: self.validated_data[name] for name in TokenRequest.__slots__})


class SignInSerializer(TokenRequestSerializer):
    """Who signs in."""

    username = TextField(max_length=150)
    password = TextField(max_length=1_024, trim_whitespace=False)


class TokenSerializer(serializers.ModelSerializer[Token]):
    """A token without its text, which is shown once."""

    prefix = serializers.CharField(read_only=True, help_text="Its first characters.")

    class Meta:
        model = Token
        fields: tuple[str, ...] = (
            "id", "name", "prefix", "organization", "read_only", "created", "expiry", "last_used",
        )  # fmt: skip
        read_only_fields = fields


class OwnTokenSerializer(TokenSerializer):
    """One of one's tokens in the list of them."""

    current = serializers.SerializerMethodField(help_text="Whether this request was made with it.")

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "current")
        read_only_fields = fields

    def get_current(self, token: Token) -> bool:
        """Whether this request was made with it."""
        return bool(self.context["request"].auth == token)


class NewTokenSerializer(TokenSerializer):
    """A token with its text."""

    token = serializers.SerializerMethodField(help_text="To be sent as Authorization: Bearer …; it is shown this once.")

    class Meta(TokenSerializer.Meta):
        fields = ("token", *TokenSerializer.Meta.fields)
        read_only_fields = fields

    def get_token(self, token: Token) -> str:
        """What the view has put into the context."""
        text: str = self.context["text"]
        return text
