"""The ASGI application that uvicorn serves."""

import os
import sys

from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.settings")
try:
    django = get_asgi_application()
except ImproperlyConfigured as error:
    sys.exit(f"The service is not set up: {error}")

from django.db import connections

from orchestrator.streaming import EventStreams

# Here each request has a thread of its own: a connection that is kept for the thread's next request is a leaked one.
for alias in connections:
    connections.settings[alias]["CONN_MAX_AGE"] = 0

application = EventStreams(django)
