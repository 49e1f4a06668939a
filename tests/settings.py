"""The service's settings, in a data directory and with a queue that are the tests' own; also for child processes."""

import os
import tempfile
from pathlib import Path

HOME = Path(tempfile.mkdtemp(prefix="orchestrator-tests-"))
os.environ["ORCHESTRATOR_DATA_DIR"] = str(HOME)
os.environ["REDIS_URL"] = f"unix://{HOME}/redis.sock"
os.environ["_ANSIBLE_TEMPLAR_UNTRUSTED_TEMPLATE_BEHAVIOR"] = "error"

from orchestrator.settings import *  # noqa: E402, F403 - after the environment was set
from orchestrator.settings import DATABASES  # noqa: E402

if "sqlite3" in DATABASES["default"]["ENGINE"]:
    # A file, as in life: threads have connections of their own, which a database in memory can't give them.
    DATABASES["default"]["TEST"] = {"NAME": str(HOME / "tests.sqlite3")}

CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
SIGN_IN_RATE = LAUNCH_RATE = (1_000_000, 60)  # seconds; tests of the limits set lower ones

WHITENOISE_AUTOREFRESH = True  # looks for a file when it is asked for: each client would list all of them, in 40 ms

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # each test makes users
