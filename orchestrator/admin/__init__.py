"""Pages over the same actions as the API: the fleet, the run wizard, a run while it happens, the queue.

Who may see and do what is access.py's word alone.  Importing this package registers the pages.
"""

from django.contrib import admin

from orchestrator.admin import (  # noqa: F401 - each registers its pages
    audit_log,
    commands,
    credentials,
    devices,
    organizations,
    playbooks,
    queue,
    runs,
    saved_targets,
    schedules,
    tokens,
    users,
    webhooks,
)

admin.site.index_template = "orchestrator/dashboard.html"
admin.site.enable_nav_sidebar = True
