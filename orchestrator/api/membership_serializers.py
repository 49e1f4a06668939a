"""People and their roles in JSON."""

from typing import Any, Final

from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError as PasswordError
from django.db import transaction
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from orchestrator.access import Right, Role
from orchestrator.api.fields import IdField, LineField, StrictBooleanField, TextField, VisibleRelatedField, WordField
from orchestrator.api.fleet_serializers import RowSerializer
from orchestrator.api.permissions import access_of
from orchestrator.api.token_serializers import TokenSerializer
from orchestrator.exceptions import NotPermittedError
from orchestrator.models import Membership, Organization, Token, User

_USERNAME: Final = 150  # characters, as Django's model has it


class UserSerializer(RowSerializer):
    """A person or a script that signs in; the password can be written and never read."""

    username = LineField(max_length=_USERNAME, validators=[UnicodeUsernameValidator()])
    password = TextField(write_only=True, max_length=1_024, trim_whitespace=False, help_text="Ends the user's tokens.")
    email = serializers.EmailField(max_length=254, required=False, allow_blank=True, default="")
    first_name = LineField(max_length=150, required=False, allow_blank=True, default="")
    last_name = LineField(max_length=150, required=False, allow_blank=True, default="")
    is_active = StrictBooleanField(required=False, default=True, help_text="Whether the user may sign in.")
    is_staff = StrictBooleanField(required=False, default=False, help_text="Whether the user may use the admin pages.")
    is_superuser = StrictBooleanField(required=False, default=False)

    class Meta:
        model = User
        fields = (
            "id", "username", "password", "email", "first_name", "last_name", "is_active", "is_staff", "is_superuser",
            "last_login", "date_joined",
        )  # fmt: skip
        read_only_fields = ("last_login", "date_joined")

    def get_fields(self) -> dict[str, Any]:
        """A user that exists keeps the password unless another one is sent."""
        fields = super().get_fields()
        fields["password"].required = self.instance is None
        return fields

    def validate_username(self, value: str) -> str:
        """Unique in the form that Django stores."""
        name = User.normalize_username(value)
        same = User.objects.filter(username=name).first()
        if same and same != self.instance:
            raise serializers.ValidationError("There is a user of this name.")
        return name

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """A password that is not guessed at once; and nobody locks themselves out."""
        user = self.instance if isinstance(self.instance, User) else None
        names = ("username", "email", "first_name", "last_name")
        about = User(**{name: attrs.get(name, getattr(user, name, "")) for name in names})
        if "password" in attrs:
            try:
                validate_password(attrs["password"], about)
            except PasswordError as error:
                raise serializers.ValidationError({"password": error.messages}) from error
        if user and user == self.context["request"].user:
            for name in ("is_active", "is_superuser"):
                if not attrs.get(name, True):
                    raise serializers.ValidationError({name: ["Nobody takes this away from themselves."]})
        return attrs

    def create(self, validated_data: dict[str, Any]) -> User:
        """Insert, the password hashed."""
        password = validated_data.pop("password")
        user = User(**validated_data)
        user.set_password(password)
        user.save(force_insert=True)
        return user

    def update(self, instance: User, validated_data: dict[str, Any]) -> User:
        """Update; with another password the tokens of the old one end."""
        password = validated_data.pop("password", None)
        with transaction.atomic():
            if password is not None:
                instance.set_password(password)
                Token.objects.filter(user=instance).delete()
            user: User = super().update(instance, validated_data)
        return user


class OwnMembershipSerializer(serializers.ModelSerializer[Membership]):
    """One of my roles."""

    organization = serializers.UUIDField(source="organization_id", read_only=True)
    organization_name = serializers.CharField(source="organization.name", read_only=True)

    class Meta:
        model = Membership
        fields = ("id", "organization", "organization_name", "role")
        read_only_fields = fields


class MeSerializer(serializers.ModelSerializer[User]):
    """Who asks, with the rights that the token of the request leaves."""

    is_superuser = serializers.SerializerMethodField(help_text="Whether superuser rights count for this request.")
    memberships = serializers.SerializerMethodField()
    token = serializers.SerializerMethodField(help_text="The token of this request; null with a session.")

    class Meta:
        model = User
        fields = ("id", "username", "email", "first_name", "last_name", "is_superuser", "memberships", "token")
        read_only_fields = fields

    def get_is_superuser(self, user: User) -> bool:
        """Not with a token that is limited to an organization."""
        return access_of(self.context["request"]).everything

    @extend_schema_field(OwnMembershipSerializer(many=True))
    def get_memberships(self, user: User) -> Any:
        """Those that exist for this request."""
        rows = user.memberships.select_related("organization")
        return OwnMembershipSerializer(access_of(self.context["request"]).visible(rows), many=True).data

    @extend_schema_field(TokenSerializer(allow_null=True))
    def get_token(self, user: User) -> Any:
        """With its limits."""
        return TokenSerializer(user.token, context=self.context).data if user.token else None


@extend_schema_field({"type": "string", "maxLength": _USERNAME, "description": "The user's id, or user name."})
class UserField(serializers.Field[Any, Any, Any, Any]):
    """A user by id or by user name; shown by id."""

    def to_internal_value(self, data: Any) -> User:
        """The user; where one's name is another one's id, the id counts.

        Raises:
            ValidationError: there is none.
        """
        name = TextField(max_length=_USERNAME).run_validation(data)
        try:
            pk = IdField().to_internal_value(name)
        except serializers.ValidationError:
            found = User.objects.filter(username=User.normalize_username(name)).first()
        else:
            found = User.objects.filter(pk=pk).first()
        if found is None:
            raise serializers.ValidationError("There is no such user.")
        return found

    def to_representation(self, value: User) -> str:
        """The id."""
        return str(value.pk)


class MembershipSerializer(RowSerializer):
    """A user's role in an organization."""

    organization = VisibleRelatedField(queryset=Organization.objects.all(), organization="pk")
    user = UserField()
    username = serializers.CharField(source="user.username", read_only=True)
    role = WordField(choices=Role.choices)

    class Meta:
        model = Membership
        fields = ("id", "organization", "user", "username", "role")
        validators: tuple[Any, ...] = ()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Given by an administrator of the organization; one for each user; only the role changes."""
        row = self.instance if isinstance(self.instance, Membership) else None
        for name in ("organization", "user"):
            if row and attrs.get(name, getattr(row, name)) != getattr(row, name):
                raise serializers.ValidationError({name: ["This stays. Delete the membership and make another one."]})
        organization = row.organization if row else attrs["organization"]
        if not access_of(self.context["request"]).can(Right.MANAGE, organization.pk):
            raise NotPermittedError("Only administrators of the organization may do this.")
        if row is None and Membership.objects.filter(organization=organization, user=attrs["user"]).exists():
            raise serializers.ValidationError({"user": ["This user has a role there already."]})
        return attrs
