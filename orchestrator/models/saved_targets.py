"""Target filters that were given a name."""

from django.db import models

from orchestrator.models.fleet import OrganizationOwned


class SavedTargets(OrganizationOwned):
    """A target filter of an organization; it is resolved whenever it is used, never kept as a list of devices."""

    targets = models.JSONField(default=dict)

    class Meta(OrganizationOwned.Meta):
        verbose_name = "saved target set"
        constraints = (models.UniqueConstraint(fields=("organization", "name"), name="saved_targets_name_unique"),)
