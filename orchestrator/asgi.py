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

from orchestrator.streaming import EventStreams  # noqa: E402 - models can be imported from here on

application = EventStreams(django)
