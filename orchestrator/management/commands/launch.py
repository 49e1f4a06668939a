"""manage.py launch: preview or start a mass command in the language of the API."""

import argparse
import json
import sys
import uuid
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orchestrator import actions
from orchestrator.access import Access
from orchestrator.api.run_serializers import ConfirmationRequestSerializer, LaunchSerializer, MassCommandSerializer
from orchestrator.exceptions import InvalidFieldError, OrchestratorError
from orchestrator.models import CommandType, Device, DeviceGroup, Location, Organization, Platform, SavedTargets, User
from orchestrator.targeting import REASONS

_ROWS: Final[dict[str, Any]] = {
    "organization": Organization, "group": DeviceGroup, "location": Location, "saved": SavedTargets, "device": Device,
}  # fmt: skip
_SHOWN: Final = 20  # ineligible devices named by a preview


class Command(BaseCommand):
    """The same fields, checks and errors as ``POST /api/v1/controller/batch-command/``."""

    help = (
        "Starts a mass command with the rights of a user, and prints it as JSON; with --preview only shows on which "
        "devices it would run. Rows are named by id, or by name where only one has it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The target filter, what to run, and how."""
        parser.add_argument("--user", required=True, help="whose rights count, and who will have started it")
        parser.add_argument("--preview", action="store_true", help="show the targets and their digest, start nothing")
        targets = parser.add_argument_group("targets", "all that is given must hold")
        for name in ("organization", "group", "location", "saved"):
            targets.add_argument(f"--{name}", metavar="ROW")
        targets.add_argument("--device", metavar="ROW", action="append", help="a picked device; several times")
        targets.add_argument("--all-devices", action="store_true", help="of all organizations; for superusers")
        targets.add_argument("--platform", choices=Platform.values)
        targets.add_argument("--name", metavar="PATTERN", help="the whole name: * is any text, ? is one character")
        targets.add_argument("--tag", action="append", help="a tag that devices must have; several times")
        targets.add_argument("--exclude-device", metavar="ROW", action="append", help="several times")
        targets.add_argument("--exclude-group", metavar="ROW", action="append", help="several times")
        what = parser.add_argument_group("what to run")
        what.add_argument("--type", choices=CommandType.values)
        what.add_argument("--input", metavar="JSON", help='such as {"command": "uptime"}; - reads it from stdin')
        what.add_argument("--label")
        what.add_argument("--notes")
        how = parser.add_argument_group("how")
        how.add_argument("--digest", help="that of a preview: nothing is started when the targets have changed")
        how.add_argument("--expected-count", type=int, help="how many devices the targets are")
        how.add_argument("--controls", metavar="JSON", default="{}", help='such as {"canary": 1, "max_errors": "5%%"}')
        parser.epilog = "Passwords belong on stdin (--input -): arguments are seen by everybody on the machine."
        parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter

    def handle(self, *args: Any, **options: Any) -> None:
        """Run; fails with the fields that are wrong, as the API names them."""
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['user']}.")
        try:
            body = _body(options, Access.of(user))
            shown = _preview(user, body) if options["preview"] else _launch(user, body)
        except InvalidFieldError as error:
            raise CommandError(json.dumps({error.field: error.message}, indent=1)) from error
        except OrchestratorError as error:
            raise CommandError(json.dumps({"code": error.code, "detail": error.detail, **error.extra})) from error
        self.stdout.write(json.dumps(shown, indent=1, default=str))


def _body(options: dict[str, Any], access: Access) -> dict[str, Any]:
    """The body that would be sent to the API; ids stand for names."""
    simple = {name: options[name] for name in ("platform", "name", "type", "label", "notes")}
    rows = {name: options[name] and _found(name, options[name], access) for name in _ROWS if name != "device"}
    several = {
        "devices": options["device"] and [_found("device", text, access) for text in options["device"]],
        "tags": options["tag"],
        "exclude": {
            f"{kind}s": [_found(kind, text, access) for text in options[f"exclude_{kind}"]]
            for kind in ("device", "group")
            if options[f"exclude_{kind}"]
        },
        "input": _json("input", sys.stdin.read() if options["input"] == "-" else options["input"]),
        "all_devices": options["all_devices"],
    }
    given = {name: value for name, value in (rows | simple | several).items() if value}
    if not options["preview"]:
        given |= {name: options[name] for name in ("digest", "expected_count") if options[name] is not None}
    controls = _json("controls", options["controls"])
    if not isinstance(controls, dict) or controls.keys() & given.keys():
        raise InvalidFieldError("controls", "Give an object of controls only.")
    return given | controls


def _json(field: str, text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError as error:
        raise InvalidFieldError(field, f"This is not valid JSON: {error}") from error


def _found(field: str, text: str, access: Access) -> str:
    """The id of the row of this name, or the id itself."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        model = _ROWS[field]
    rows = access.visible(
        model.objects.filter(name=text), organization="pk" if model is Organization else "organization"
    )
    pks = list(rows.values_list("pk", flat=True)[:2])
    if len(pks) != 1:
        raise InvalidFieldError(field, "Several have this name: give the id." if pks else f'There is no "{text}".')
    return str(pks[0])


def _checked[S: (ConfirmationRequestSerializer, LaunchSerializer)](given: S) -> S:
    if not given.is_valid():
        raise CommandError(json.dumps(given.errors, indent=1))
    return given


def _preview(user: User, body: dict[str, Any]) -> dict[str, Any]:
    given = _checked(ConfirmationRequestSerializer(data=body))
    found, digest = actions.preview(
        actor=user,
        targets=given.target_filter(),
        command_type=given.validated_data.get("type", ""),
        command_input=given.validated_data.get("input"),
    )
    count, eligible = found.totals()
    skipped = found.rows.exclude(ineligible="").order_by("name", "pk").values_list("name", "ineligible")[:_SHOWN]
    return {
        "count": count,
        "eligible_count": eligible,
        "digest": digest,
        "breakdown": found.breakdown(),
        "ineligible": [{"name": name, "reason": REASONS[code]} for name, code in skipped],
    }


def _launch(user: User, body: dict[str, Any]) -> dict[str, Any]:
    given = _checked(LaunchSerializer(data=body))
    run = actions.launch(actor=user, request=given.request())
    return dict(MassCommandSerializer(run).data)
