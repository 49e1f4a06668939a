"""All settings, from the environment; README.md names each with its default (a test checks that).

Without any variable the embedded mode runs: SQLite and keys below ``ORCHESTRATOR_DATA_DIR``, a private Redis on a
unix socket.  ``ORCHESTRATOR_PRODUCTION=1`` refuses to make up what production must be given.
"""

import base64
import ipaddress
import os
import re
import secrets as random
import sys
from datetime import timedelta
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()

PRODUCTION = env.bool("ORCHESTRATOR_PRODUCTION", default=False)
DATA_DIR = Path(env.str("ORCHESTRATOR_DATA_DIR", default=str(BASE_DIR / "var"))).absolute()
DEBUG = env.bool("DJANGO_DEBUG", default=False)
if DEBUG and PRODUCTION:
    raise ImproperlyConfigured("DJANGO_DEBUG must be off when ORCHESTRATOR_PRODUCTION is on")


def _kept(name: str, make: str) -> str:
    """The content of a private file of the data directory, which the first process to ask creates."""
    path = DATA_DIR / name
    if not path.exists():
        DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = DATA_DIR / f".{name}.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_text(make)
        try:
            os.link(draft, path)  # fails if another process was first: its value counts
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


def _given(variable: str, default: str = "") -> str:
    """A secret: the variable, or the content of the file that ``<variable>_FILE`` names."""
    value, path = env.str(variable, default=""), env.str(f"{variable}_FILE", default="")
    if value and path:
        raise ImproperlyConfigured(f"{variable} and {variable}_FILE are both set: give one of them")
    try:
        value = Path(path).read_text().strip() if path else value
    except OSError as error:
        raise ImproperlyConfigured(f"{variable}_FILE can't be read: {error.strerror}") from None
    return value or default


def _required_or_kept(variable: str, name: str, make: str) -> str:
    value = _given(variable)
    if value:
        return value
    if PRODUCTION:
        raise ImproperlyConfigured(f"{variable} must be set when ORCHESTRATOR_PRODUCTION is on")
    return _kept(name, make)


def _key_ring(text: str) -> dict[str, bytes]:
    """``id:base64 of 32 bytes``, comma-separated; the first seals, all of them open."""
    ring = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key_id, _, encoded = part.partition(":")
        try:
            ring[key_id] = base64.b64decode(encoded, validate=True)
        except ValueError:
            ring[key_id] = b""
        if not key_id or "$" in key_id or len(ring[key_id]) != 32:
            raise ImproperlyConfigured("ORCHESTRATOR_SECRET_KEYS: each key is an id, a colon and 32 bytes in base64")
    if not ring:
        raise ImproperlyConfigured("ORCHESTRATOR_SECRET_KEYS holds no key")
    return ring


def _rate(variable: str, text: str) -> tuple[int, int]:
    """``20/min``: how many, and in how many seconds."""
    number, _, period = text.partition("/")
    seconds = {"sec": 1, "min": 60, "hour": 3_600, "day": 86_400}.get(period)
    if not number.isdecimal() or not number.isascii() or int(number) < 1 or not seconds:
        raise ImproperlyConfigured(f'{variable} is a number, "/" and sec, min, hour or day')
    return int(number), seconds


def _networks(variable: str, given: list[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """``10.0.0.0/8,fd00::/8``."""
    try:
        return [ipaddress.ip_network(text.strip()) for text in given]
    except ValueError as error:
        raise ImproperlyConfigured(f"{variable} is a list of networks such as 10.0.0.0/8: {error}") from error


def _vaults(variable: str, given: list[str]) -> list[tuple[Path | None, str, Path]]:
    """``prod@/etc/vaults/prod``, for one directory or pulled repository: ``/srv/playbooks=prod@/etc/vaults/prod``."""
    found: list[tuple[Path | None, str, Path]] = []
    for text in map(str.strip, given):
        match = re.fullmatch(r"(?:(?P<where>[^=]+)=)?(?P<label>[\w.-]+)@(?P<file>/.+)", text)
        if not match:
            raise ImproperlyConfigured(f"{variable}: each vault is a label, @ and an absolute path, not {text!r}")
        where = match["where"]
        if where and "/" in where and Path(where) not in PLAYBOOK_DIRS:
            raise ImproperlyConfigured(f"{variable}: {where} is not among ORCHESTRATOR_PLAYBOOK_DIRS")
        directory = DATA_DIR / "playbook_sources" / where if where else None  # an absolute path stays what it is
        found.append((directory, match["label"], Path(match["file"])))
    return found


SECRET_KEY = _required_or_kept("DJANGO_SECRET_KEY", "secret_key", random.token_urlsafe(50))
SECRET_KEY_RING = _key_ring(
    _required_or_kept(
        "ORCHESTRATOR_SECRET_KEYS", "secret_keys", "1:" + base64.b64encode(random.token_bytes(32)).decode()
    )
)
ALLOWED_HOSTS = env.list("DJANGO_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("DJANGO_CSRF_TRUSTED_ORIGINS", default=[])

# ---------------------------------------------------------------- the run
FORKS = env.int("ORCHESTRATOR_FORKS", default=20)  # devices at once in one slice
FAST_PATH = env.bool("ORCHESTRATOR_FAST_PATH", default=True)  # no fork for each device and task
SSH_LIBRARY_FROM = env.int("ORCHESTRATOR_SSH_LIBRARY_FROM", default=20)  # devices in a slice; 0: never
CONNECTIONS = env.int("ORCHESTRATOR_CONNECTIONS", default=50)  # devices at once in such a slice, if more than FORKS
SLICE_SIZE = env.int("ORCHESTRATOR_SLICE_SIZE", default=0)  # devices in one RQ job; 0: by pacing.slice_size
CONNECT_TIMEOUT = env.float("ORCHESTRATOR_CONNECT_TIMEOUT", default=10.0)  # seconds, until logged in
EXECUTION_TIMEOUT = env.float("ORCHESTRATOR_EXECUTION_TIMEOUT", default=300.0)  # seconds, per device
REBOOT_TIMEOUT = env.float("ORCHESTRATOR_REBOOT_TIMEOUT", default=300.0)  # seconds, until the device is back
OUTPUT_LIMIT = env.int("ORCHESTRATOR_OUTPUT_LIMIT", default=256 * 1024)  # bytes kept of each stream of a device
TRUST_ON_FIRST_USE = env.bool("ORCHESTRATOR_TRUST_ON_FIRST_USE", default=False)
RUN_DIR = env.str("ORCHESTRATOR_RUN_DIR", default="/dev/shm" if os.access("/dev/shm", os.W_OK) else "")  # noqa: S108
PLAYBOOK_DIR = BASE_DIR / "playbooks"
_OWN_PLAYBOOKS = env.str("ORCHESTRATOR_PLAYBOOK_DIRS", default="")  # with colons
PLAYBOOK_DIRS = [PLAYBOOK_DIR, *(Path(name).absolute() for name in _OWN_PLAYBOOKS.split(os.pathsep) if name)]
PLAYBOOK_VAULTS = _vaults("ORCHESTRATOR_PLAYBOOK_VAULTS", env.list("ORCHESTRATOR_PLAYBOOK_VAULTS", default=[]))
PLAYBOOK_TIMEOUT = env.float("ORCHESTRATOR_PLAYBOOK_TIMEOUT", default=14_400.0)  # seconds, of a run without deadline
OFFLINE_RETRY_SECONDS = env.float("ORCHESTRATOR_OFFLINE_RETRY_SECONDS", default=60.0)  # doubles up to an hour
LEASE_SECONDS = env.float("ORCHESTRATOR_LEASE_SECONDS", default=30.0)
AUDIT_DAYS = env.int("ORCHESTRATOR_AUDIT_DAYS", default=0)
if 0 < AUDIT_DAYS < 30:  # whoever did something can't make it forgotten the next day
    raise ImproperlyConfigured("ORCHESTRATOR_AUDIT_DAYS is 30 at least, or 0: entries are kept for ever")
PREVIEW_HOURS = env.int("ORCHESTRATOR_PREVIEW_HOURS", default=24)  # how long a preview can be launched by its digest

# ---------------------------------------------------------------- external stores of secrets
VAULT_ADDRESS = env.str("ORCHESTRATOR_VAULT_ADDRESS", default="")
if VAULT_ADDRESS and not VAULT_ADDRESS.startswith("https://" if PRODUCTION else ("https://", "http://")):
    raise ImproperlyConfigured("ORCHESTRATOR_VAULT_ADDRESS begins with https://")
VAULT_MOUNT = env.str("ORCHESTRATOR_VAULT_MOUNT", default="secret")  # of the KV version 2 engine
VAULT_NAMESPACE = env.str("ORCHESTRATOR_VAULT_NAMESPACE", default="")
VAULT_CA = env.str("ORCHESTRATOR_VAULT_CA", default="")
VAULT_TIMEOUT = env.float("ORCHESTRATOR_VAULT_TIMEOUT", default=5.0)  # seconds, for one answer
VAULT_TOKEN = _given("ORCHESTRATOR_VAULT_TOKEN")
VAULT_ROLE_ID = _given("ORCHESTRATOR_VAULT_ROLE_ID")
VAULT_SECRET_ID = _given("ORCHESTRATOR_VAULT_SECRET_ID")
SECRETS_DIRECTORY = env.str("ORCHESTRATOR_SECRETS_DIRECTORY", default="")

# ---------------------------------------------------------------- webhooks
WEBHOOK_NETWORKS = _networks(  # besides the public internet
    "ORCHESTRATOR_WEBHOOK_NETWORKS", env.list("ORCHESTRATOR_WEBHOOK_NETWORKS", default=[])
)

# ---------------------------------------------------------------- Django
INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "knox",
    "django_rq",
    "orchestrator",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "orchestrator.browsers.BrowserPolicyMiddleware",
    "orchestrator.api.bodies.ChunkedBodyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "orchestrator.origin.OriginMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "orchestrator.urls"
ASGI_APPLICATION = "orchestrator.asgi.application"
AUTH_USER_MODEL = "orchestrator.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "orchestrator" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
_PASSWORD_VALIDATION = "django.contrib.auth.password_validation."  # noqa: S105 - a module's name
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": _PASSWORD_VALIDATION + name}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
STATIC_ROOT.mkdir(exist_ok=True)  # WhiteNoise warns where there is none
WHITENOISE_USE_FINDERS = True  # no collectstatic step
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
SECURE_SSL_REDIRECT = PRODUCTION
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = PRODUCTION
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if PRODUCTION else None
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 20_000  # an admin action on some thousand ticked devices

DATABASES = {"default": env.db_url_config(_given("DATABASE_URL", f"sqlite:///{DATA_DIR / 'db.sqlite3'}"))}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",  # no upgrade of a read lock in mid-transaction: waits instead of failing
        "timeout": 30,  # seconds
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
    }
else:
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    DATABASES["default"]["CONN_MAX_AGE"] = 60  # seconds

# ---------------------------------------------------------------- queue
REDIS_URL = _given("REDIS_URL", f"unix://{DATA_DIR / 'redis.sock'}")
if REDIS_URL.startswith(("redis://", "rediss://")) and "socket_connect_timeout" not in REDIS_URL:
    # A host that drops packets must not hang a request or a worker.
    REDIS_URL += ("&" if "?" in REDIS_URL else "?") + "socket_connect_timeout=5"  # seconds
RQ_QUEUES = {"commands": {"URL": REDIS_URL, "DEFAULT_TIMEOUT": 86_400}}  # seconds; our own deadline comes first
RQ = {"COMMIT_MODE": "on_db_commit", "WORKER_CLASS": "orchestrator.dispatch.SliceWorker"}

# What counts requests. The service goes on when it is dead, and does not wait for it.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": [REDIS_URL],
        "KEY_PREFIX": "orchestrator",
        "OPTIONS": {"socket_connect_timeout": 0.5, "socket_timeout": 0.5},  # seconds
    }
}

# ---------------------------------------------------------------- API
SIGN_IN_RATE = _rate("ORCHESTRATOR_SIGN_IN_RATE", env.str("ORCHESTRATOR_SIGN_IN_RATE", default="20/min"))
LAUNCH_RATE = _rate("ORCHESTRATOR_LAUNCH_RATE", env.str("ORCHESTRATOR_LAUNCH_RATE", default="120/min"))
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "orchestrator.api.authentication.BearerAuthentication",
        "orchestrator.api.authentication.BrowserAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["orchestrator.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer", "orchestrator.api.pages.PageRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "orchestrator.api.pages.Negotiation",
    "DEFAULT_FILTER_BACKENDS": ["orchestrator.api.filters.StrictFilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "orchestrator.api.pagination.Pages",
    "DEFAULT_SCHEMA_CLASS": "orchestrator.api.schema.Schema",
    "EXCEPTION_HANDLER": "orchestrator.api.errors.handle",
    "PAGE_SIZE": 20,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "NUM_PROXIES": env.int("ORCHESTRATOR_PROXIES", default=0),
}
MIGRATION_MODULES = {"knox": None}  # its table is not made: it would refer to the users, and stay empty
KNOX_TOKEN_MODEL = "orchestrator.Token"  # noqa: S105 - a model's name
REST_KNOX = {
    "AUTH_HEADER_PREFIX": "Bearer",
    "TOKEN_TTL": timedelta(hours=env.int("ORCHESTRATOR_TOKEN_HOURS", default=24 * 30)),
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Orchestrator",
    "DESCRIPTION": "One command on many devices, and for each device exactly what happened.",
    "VERSION": "1.0.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "orchestrator.api.schema.link"],
    "ENUM_NAME_OVERRIDES": {
        "CommandStatusEnum": "orchestrator.states.CommandStatus",
        "RunStatusEnum": "orchestrator.states.RunStatus",
        "CommandTypeEnum": "orchestrator.models.CommandType",
        "TaskStatusEnum": "orchestrator.models.TaskStatus",
        "PlaybookStatusEnum": "orchestrator.models.PlaybookStatus",
        "PlatformEnum": "orchestrator.models.Platform",
    },
}
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"  # unfold's sign-in page forgets where to go next
UNFOLD = {
    "SITE_TITLE": "Orchestrator",
    "SITE_HEADER": "Orchestrator",
    "SITE_SYMBOL": "hub",
    "SITE_URL": None,  # the admin is the site: no link from it to itself
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "orchestrator.admin.navigation.favicon"}],
    "DASHBOARD_CALLBACK": "orchestrator.admin.dashboard.context",
    "SIDEBAR": {"navigation": "orchestrator.admin.navigation.sidebar"},
    "STYLES": ["orchestrator.admin.navigation.stylesheet"],
    "SCRIPTS": ["orchestrator.admin.navigation.styles_by_script"],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "stream": sys.stderr}},
    "root": {"handlers": ["console"], "level": env.str("ORCHESTRATOR_LOG_LEVEL", default="INFO")},
}
