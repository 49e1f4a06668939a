"""Somebody who uses the admin by plain requests."""

from typing import Any

from django.urls import reverse

from orchestrator.models import User

UPTIME = {"type": "custom", "custom__command": "uptime"}


class Operator:
    """Somebody with a browser."""

    def __init__(self, client: Any, user: User) -> None:
        self.client, self.user = client, user
        client.force_login(user)

    def get(self, name: str, *args: Any, **query: Any) -> Any:
        return self.client.get(reverse(f"admin:orchestrator_{name}", args=args), query)

    def post(self, name: str, *args: Any, data: Any, follow: bool = False) -> Any:
        return self.client.post(reverse(f"admin:orchestrator_{name}", args=args), data, follow=follow)

    def draft(self, targets: dict[str, Any], command: dict[str, Any] | None = None) -> Any:
        """The id of a draft that is ready for its review."""
        reply = self.post("run_new", data={"scope": "filter"} | targets)
        assert reply.status_code == 302, reply.context["form"].errors
        pk = reply.url.rstrip("/").split("/")[-2]
        reply = self.post("run_command", pk, data=UPTIME if command is None else command)
        assert reply.status_code == 302, reply.context["form"].errors
        return pk

    def review(self, pk: Any, **more: Any) -> dict[str, Any]:
        """What the review page's form would send."""
        context = self.get("run_review", pk).context
        fields = {"digest": context["digest"], "revision": context["draft"].revision, "eligible": context["eligible"]}
        return fields | more
