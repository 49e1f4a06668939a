"""Known secrets are planted wherever there is one; runs of each kind are made; then they are nowhere to be found.

Searched are the database (its files with their free pages and log, or a dump), all that the queue was ever told, every
file, every log, the command lines and environments of all processes while the runs go on, every reply of the API, the
exports and every page of the admin.
"""

import base64
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lab.client import Lab
from lab.fleet import DEFAULT_PASSWORD
from orchestrator.secrets import MASK
from tests.acceptance.canaries import Canaries, Findings, links, queue_server, sampled
from tests.acceptance.service import ADMIN, Service, running
from tests.chaos.victims import kill, named
from tests.vault import Vault, serving

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.database, pytest.mark.timeout(420)]

ROUTER: Final = "openwrt6"
SERVER: Final = "linux2"
SPECIAL: Final = "p {} $x'\"%é"  # around a core: what shells, JSON and addresses write in their own ways
SAY: Final = "cat /root/canaries"
PLAYBOOKS: Final = Path(__file__).parent / "secret_playbooks"
LISTED: Final = {"controller/commands/": "controller/batch-command/{run}/commands/"}  # where the ids are
PAGES: Final = 150  # of the admin, at most


@dataclass
class Plot:
    """The service with the secrets in it."""

    service: Service
    lab: Lab
    canaries: Canaries
    findings: Findings
    folder: Path
    database: str  # its URL
    runs: Path
    vault: Vault
    secret: dict[str, str] = field(default_factory=dict)  # name → the secret as people write it
    ids: dict[str, str] = field(default_factory=dict)

    def make(self, name: str, wrap: str = SPECIAL) -> str:
        """A new secret."""
        self.secret[name] = self.canaries.make(name, wrap)
        return self.secret[name]

    def post(self, path: str, body: Any) -> Any:
        """POST below the controller's addresses; the reply's JSON."""
        return self.service.post(f"controller/{path}", body)

    def run(self, command: str, *, devices: tuple[str, ...] = (ROUTER, SERVER), **more: Any) -> Any:
        """Run a command line on devices."""
        ids = [self.ids[name] for name in devices]
        return self.service.run(devices=ids, type="custom", input={"command": command}, **more)

    def new_password(self, name: str, device: str, *, check: bool = False, username: str = "") -> dict[str, Any]:
        """The body of a password change with a new secret."""
        password = self.make(name)
        given = {"password": password, "confirm_password": password} | ({"username": username} if username else {})
        return {"devices": [self.ids[device]], "type": "change_password", "input": given, "check": check}


# ---------------------------------------------------------------- planting
@pytest.fixture
def plot(lab: Lab, tmp_path: Path) -> Iterator[Plot]:
    """Everything that is secret is a canary, the service's own secrets come from files."""
    with ExitStack() as stack:
        runs = Path(tempfile.mkdtemp(prefix="c", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        stack.callback(shutil.rmtree, runs)
        canaries, folder = Canaries(), tmp_path / "service"
        findings = Findings(canaries)
        plain = "{}"
        queue = stack.enter_context(queue_server(tmp_path / "queue", canaries.make("queue password", plain)))
        vault = stack.enter_context(serving(Vault(token=canaries.make("Vault token", "hvs.{}"))))
        ring = os.urandom(32)
        encoded = base64.b64encode(ring).decode()
        canaries.add("key ring", encoded[:40])
        canaries.add("key ring, raw", ring)
        database = stack.enter_context(database_url(folder, canaries.make("database password", plain)))
        texts = {
            "DJANGO_SECRET_KEY": canaries.make("Django's key", "django-{}-and-more-than-fifty-characters-of-it"),
            "ORCHESTRATOR_SECRET_KEYS": f"canary:{encoded}", "ORCHESTRATOR_VAULT_TOKEN": vault.token,
            "REDIS_URL": queue, "DATABASE_URL": database,
        }  # fmt: skip
        given = tmp_path / "given"
        given.mkdir(mode=0o700)
        for name, text in texts.items():
            (given / name).write_text(text)
        for name in ("home", "tmp"):
            (tmp_path / name).mkdir()
        environment = {f"{name}_FILE": str(given / name) for name in texts} | {
            "DATABASE_URL": "", "ORCHESTRATOR_VAULT_ADDRESS": vault.url, "ORCHESTRATOR_RUN_DIR": str(runs),
            "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "ORCHESTRATOR_LEASE_SECONDS": "4",
            "ORCHESTRATOR_CONNECT_TIMEOUT": "4", "ORCHESTRATOR_EXECUTION_TIMEOUT": "40",
            "ORCHESTRATOR_LOG_LEVEL": "DEBUG", "ORCHESTRATOR_PLAYBOOK_DIRS": str(PLAYBOOKS),
        }  # fmt: skip
        service = stack.enter_context(running(folder, workers=1, **environment))
        canaries.add("API token", service.http.headers["Authorization"].rsplit(" ", 1)[1][20:48])
        made = Plot(service, lab, canaries, findings, folder, database, runs, vault)
        stack.callback(lab.exec, ROUTER, "sh", "-c", set_password("passwd root", DEFAULT_PASSWORD, times=2))
        for account in ("root:", "operator:"):
            was = set_password("chpasswd", DEFAULT_PASSWORD, times=1, account=account)
            stack.callback(lab.exec, SERVER, "sh", "-c", was)
        stack.callback(lab.exec, SERVER, "rm", "-f", "/etc/sudoers.d/rootpw")
        stack.callback(lab.fault, ROUTER, "none")
        plant(made, tmp_path)
        service.http.event_hooks = {"response": [lambda reply: heard(findings, reply)]}
        yield made


@contextmanager
def database_url(folder: Path, password: str) -> Iterator[str]:
    """SQLite below the folder, or a database of its own in the PostgreSQL that the tests run on."""
    server = os.environ.get("DATABASE_URL", "")
    if not server.startswith("postgres"):
        yield f"sqlite:///{folder / 'db.sqlite3'}"
        return
    with psycopg.connect(host=socket_folder(server), user="postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE canaries")
        try:
            yield server.replace("postgres@", f"postgres:{password}@").rsplit("/", 1)[0] + "/canaries"
        finally:
            connection.execute("DROP DATABASE canaries WITH (FORCE)")


def socket_folder(database: str) -> str:
    """Where the PostgreSQL of the tests listens; its files are beside."""
    return "/" + database.partition("@//")[2].rpartition("/")[0]


def set_password(program: str, password: str, *, times: int, account: str = "") -> str:
    """A shell script that sets a password."""
    line = shlex.quote(account + password)
    return f"printf '{'%s\\n' * times}' {' '.join([line] * times)} | {program}"


def plant(plot: Plot, folder: Path) -> None:
    """Secrets on the devices, and the credentials for them."""
    held, wrong = plot.make("password in the Vault"), plot.make("password that is wrong")
    become, phrase = plot.make("become password"), plot.make("passphrase")
    key, public = private_key(plot, phrase)
    say = {ROUTER: (held, wrong), SERVER: (become, phrase, key)}
    for name, secrets in say.items():
        text = base64.b64encode("\n".join(map(said, secrets)).encode()).decode()
        plot.lab.exec(
            name, "sh", "-c", f"echo {text} | base64 -d > /root/canaries; chmod 644 /root/canaries; chmod 711 /root"
        )
    plot.lab.exec(ROUTER, "sh", "-c", set_password("passwd root", held, times=2))
    home = "/home/operator/.ssh"
    plot.lab.exec(SERVER, "sh", "-c", (
        f"{set_password('chpasswd', become, times=1, account='root:')}; mkdir -p {home}; chmod 700 {home}; "
        f"echo '{public}' >> {home}/authorized_keys; chown -R operator {home}; "
        "echo 'Defaults:operator rootpw' > /etc/sudoers.d/rootpw"
    ))  # fmt: skip
    plot.ids["organization"] = plot.post("organization/", {"name": "Canaries", "secret_folder": "fleet/canaries"})["id"]
    plot.vault.secrets["fleet/canaries/router"] = {"password": held}
    referred = {"source": "vault", "references": {"password": "router#password"}}
    by_key = {"username": "operator", "private_key": key, "passphrase": phrase, "become_password": become}
    logins: dict[str, list[dict[str, Any]]] = {ROUTER: [{"password": wrong}, referred], SERVER: [by_key]}
    for name, secrets_of in logins.items():
        own = {"organization": plot.ids["organization"]}
        ids = [plot.post("credential/", own | {"name": f"{name} {number}"} | given)["id"]
               for number, given in enumerate(secrets_of)]  # fmt: skip
        device = plot.lab.devices()[name]
        about = {"name": name, "host": device.address, "port": device.port, "platform": device.kind}
        body = own | about | {"credentials": ids, "host_key": device.hostkey}
        plot.ids[name] = plot.post("device/", body)["id"]


def private_key(plot: Plot, passphrase: str) -> tuple[str, str]:
    """A key with this passphrase, and its public half; watched in its encrypted form and in its plain one."""
    key = Ed25519PrivateKey.generate()
    sealing = serialization.BestAvailableEncryption(passphrase.encode())
    kind, text = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    written = key.private_bytes(kind, text, sealing).decode()
    for number, line in enumerate(written.splitlines()[2:5]):
        plot.canaries.add(f"private key, line {number}", line[:48])
    plot.canaries.add("private key, plain", key.private_bytes_raw())
    form = serialization.PublicFormat.OpenSSH
    return written, key.public_key().public_bytes(serialization.Encoding.OpenSSH, form).decode()


def said(secret: str) -> str:
    """A secret as a device may say it: in plain, and as programs write it."""
    raw = secret.encode()
    forms = [secret, shlex.quote(secret), json.dumps(secret), quote(secret), base64.b64encode(raw).decode()]
    return "\n".join([*forms, base64.b64encode(b"root:" + raw).decode()])


def heard(findings: Findings, reply: httpx.Response) -> None:
    """Search a reply."""
    reply.read()
    findings.look("replies", str(reply.request.url), reply.content + repr(reply.headers.raw).encode())


# ---------------------------------------------------------------- runs of each kind
def talk(plot: Plot) -> None:
    """Devices that say every secret of theirs, on both outputs, and fail."""
    run = plot.run(f"{SAY}; {SAY} >&2; exit 3")
    for row in run["rows"].values():
        assert (row["status"], row["rc"]) == ("failed", 3), row
        assert min(row[output].count("********") for output in ("stdout", "stderr")) >= 12


def told(plot: Plot, name: str, device: str, *, more: str = "true") -> dict[str, Any]:
    """The body of a run of a user's own playbook, which gets a new secret."""
    given = {"pin": plot.make(name), "say": SAY, "more": more}
    return {"devices": [plot.ids[device]], "type": "playbook", "playbook": "tell", "input": given, "diff": True}


def play(plot: Plot) -> None:
    """A user's own playbook that tells its secrets in every way, watched by a listener of its stream."""
    until = time.monotonic() + 60.0
    while not plot.service.get("controller/playbook/", status="ok")["results"]:
        assert time.monotonic() < until
        time.sleep(0.2)
    for device in (ROUTER, SERVER):
        run = plot.service.launch(**told(plot, f"input of a playbook for {device}", device), verbosity=3)["id"]
        plot.service.http.get(f"controller/batch-command/{run}/events/", headers={"Accept": "text/event-stream"})
        [row] = plot.service.wait(run)["rows"].values()
        assert (row["status"], row["reason"][:21]) == ("failed", 'A task failed: "Fail"'), row
        results = plot.service.get(f"controller/commands/{row['id']}/tasks/", page_size=100)["results"]
        by_name, plot.ids["run"] = {task["task"]: task for task in results}, run
        assert f"Say {MASK}" in by_name
        assert min(by_name[name]["message"].count(MASK) for name in ("Tell", "Loop")) > 3
        assert by_name["Fill"]["truncated"]
        assert (MASK in by_name["Change"]["diff"]) is (device == SERVER)
    hanging = told(plot, "input of a cancelled playbook", ROUTER, more="sleep 60")
    run = plot.service.launch(**hanging)["id"]
    started(plot, run)
    plot.post(f"batch-command/{run}/cancel/", {})
    assert plot.service.wait(run)["status"] == "cancelled"
    run = plot.service.launch(**told(plot, "input of a crashed playbook", ROUTER, more="sleep 60"))["id"]
    started(plot, run)
    kill(*named(plot.service.stack, "horse"), *named(plot.service.stack, "worker"))
    assert plot.service.wait(run)["rows"][ROUTER]["status"] == "lost"
    wrong = told(plot, "input of a playbook that is wrong", ROUTER) | {"check": "{}"}
    assert plot.service.http.post("controller/batch-command/", json=wrong).status_code == 400
    short = told(plot, "input that does not fit", ROUTER)
    short["input"] |= {"pin": [short["input"]["pin"]]}
    assert plot.service.http.post("controller/batch-command/", json=short).status_code == 400


def succeed(plot: Plot) -> None:
    """New passwords, a check; each time a wrong credential before the right one."""
    for body in (
        plot.new_password("password of a check", ROUTER, check=True),
        plot.new_password("password of the server", SERVER, username="operator"),
        plot.new_password("new password", ROUTER),
    ):
        assert plot.service.run(**body)["status"] == "success"


def fail(plot: Plot) -> None:
    """A device that is unreachable."""
    plot.lab.fault(ROUTER, "refuse")
    body = plot.new_password("password for one that is off", ROUTER)
    assert plot.service.run(**body)["rows"][ROUTER]["status"] == "unreachable"
    plot.lab.fault(ROUTER, "none")


def started(plot: Plot, run: str) -> None:
    """Wait until the run's device is running."""
    until = time.monotonic() + 30.0
    while plot.service.get(f"controller/batch-command/{run}/")["counts"]["running"] == 0:
        assert time.monotonic() < until
        time.sleep(0.1)


def cancel(plot: Plot) -> None:
    """A password change that is cancelled while its device hangs."""
    plot.lab.fault(ROUTER, "hang")
    run = plot.service.launch(**plot.new_password("password of a cancelled run", ROUTER))["id"]
    started(plot, run)
    plot.post(f"batch-command/{run}/cancel/", {})
    assert plot.service.wait(run)["status"] == "cancelled"


def crash(plot: Plot) -> None:
    """A password change whose worker is killed."""
    run = plot.service.launch(**plot.new_password("password of a crashed run", ROUTER))["id"]
    started(plot, run)
    stack = plot.service.stack
    kill(*named(stack, "horse"), *named(stack, "worker"))
    assert plot.service.wait(run)["rows"][ROUTER]["status"] == "lost"
    plot.lab.fault(ROUTER, "none")


def be_refused(plot: Plot) -> None:
    """Requests with secrets that are not valid, and what is stored for later."""
    body = plot.new_password("password of a preview", ROUTER)
    plot.post("batch-command/confirmation/", body)
    own = {"organization": plot.ids["organization"]}
    targets = {"devices": body["devices"]}
    later = {"name": "later", "cron": "0 3 1 1 *", "type": body["type"], "input": body["input"], "targets": targets}
    plot.post("schedule/", later)
    person = {"username": "witness", "password": plot.make("a person's password")}
    plot.service.post("users/user/", person, expect=201)
    plot.service.post("users/token/", person)
    typo = {**body, "input": body["input"] | {"confirm_password": plot.make("password with a typo")}}
    bad = {**own, "name": "bad", "username": "-bad", "password": plot.make("password of a bad credential")}
    plain = plot.make("key that is none", "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----")
    broken = {"organization": {"password": plot.make("password in a strange place")}, "x": [plain]}
    for path, given in {"batch-command/": typo, "credential/": bad, "device/": broken}.items():
        assert plot.service.http.post(f"controller/{path}", json=given).status_code == 400
    words = plot.make("password in no JSON")
    said = plot.service.http.post(
        "controller/credential/", content=f'{{"password": "{words}', headers={"Content-Type": "application/json"}
    )
    assert said.status_code == 400
    assert plot.service.http.post("users/token/", json={"username": "admin", "password": words}).status_code == 401


# ---------------------------------------------------------------- looking
def walk_api(plot: Plot) -> int:
    """GET whatever the schema has, for rows that there are; the number of replies."""
    http, number = plot.service.http, 0
    paths = http.get("schema/", headers={"Accept": "application/json"}).json()["paths"]
    for path in (path for path, operations in paths.items() if "get" in operations):
        base, _, rest = path.removeprefix("/api/v1/").partition("{id}")
        addresses = [base]
        if rest:
            rows = http.get(LISTED.get(base, "").format(run=plot.ids["run"]) or base, params={"page_size": 20}).json()
            ids = [row["id"] for row in (rows["results"] if isinstance(rows, dict) and "results" in rows else rows)]
            addresses = [f"{base}{pk}{rest}" for pk in ids[:8]]
        for address in addresses:
            for query in ({}, {"format": "csv"}, {"format": "ndjson"}) if "export" in address else ({},):
                reply = http.get(address, params=query)
                assert reply.status_code < 500, address
                number += 1
    return number


def walk_admin(plot: Plot) -> int:
    """Every page that the admin links to, a run that is being prepared, and pages that say no; their number."""
    root = plot.service.stack.url
    with httpx.Client(base_url=root, follow_redirects=True, timeout=30.0) as browser:
        browser.event_hooks = {"response": [lambda reply: heard(plot.findings, reply)]}
        browser.get("/admin/login/")
        browser.post("/admin/login/", data=form(browser, username="admin", password=plot.make("password of a sign-in")))
        assert "sessionid" not in browser.cookies
        browser.post("/admin/login/", data=form(browser, **ADMIN))
        password = plot.make("password in the wizard")
        page = browser.post(
            "/admin/orchestrator/masscommand/run/", data=form(browser, scope="devices", devices=plot.ids[ROUTER])
        )
        kind = {"type": "change_password", "change_password__password": password}
        browser.post(page.url, data=form(browser, **kind, change_password__confirm_password=password))
        browser.post("/admin/orchestrator/credential/add/", data={"password": plot.make("password without a token")})
        wanted, seen = ["/admin/", "/admin/nowhere/"], set[str]()
        while wanted and len(seen) < PAGES:
            address = wanted.pop(0)
            if address in seen or "/logout/" in address:
                continue
            seen.add(address)
            page = browser.get(address)
            if page.headers["Content-Type"].startswith("text/html"):
                wanted += links(page.text, "/admin/")
        return len(seen)


def form(browser: httpx.Client, **fields: str) -> dict[str, str]:
    """The fields with the token that a form needs."""
    return fields | {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}


def dump(plot: Plot) -> None:
    """The database: all its files; of PostgreSQL a dump, too."""
    if plot.database.startswith("sqlite"):
        return  # among the files of the service
    folder = socket_folder(plot.database)
    dumped = subprocess.run(["pg_dump", "-h", folder, "-U", "postgres", "canaries"], capture_output=True, check=True)
    plot.findings.look("database", "pg_dump", dumped.stdout)
    with psycopg.connect(host=folder, user="postgres", dbname="canaries") as connection:
        row = connection.execute("SELECT oid FROM pg_database WHERE datname = 'canaries'").fetchone()
    assert row
    plot.findings.files("database", Path(folder) / "data/base" / str(row[0]), Path(folder) / "data/pg_wal")


def test_no_secret_is_found_anywhere(plot: Plot, tmp_path: Path) -> None:
    with sampled(plot.findings) as programs:
        talk(plot)  # first, like the next: these secrets are those of the credentials until the passwords change
        play(plot)
        succeed(plot)
        fail(plot)
        cancel(plot)
        crash(plot)
        be_refused(plot)
        assert walk_api(plot) > 40
        assert walk_admin(plot) > 30
    assert {"ansible-playbook", "ssh", "uvicorn"} & programs or "python" in " ".join(programs)
    findings = plot.findings
    until = time.monotonic() + 20.0
    while (left := list(plot.runs.iterdir())) and time.monotonic() < until:
        findings.files("run directories", plot.runs)
        time.sleep(0.2)
    assert left == []
    findings.files("files", plot.folder, tmp_path / "home", tmp_path / "tmp")
    (log,) = tmp_path.glob("queue/appendonlydir/*.incr.aof")
    findings.append_only(log)
    dump(plot)
    assert not findings.found, "\n".join(f"{name} in {where}" for name, where in sorted(findings.found))
    assert all(findings.looked[kind] > 1_000 for kind in ("replies", "command lines", "environments", "files", "queue"))


def test_the_search_finds_a_secret_in_every_form(tmp_path: Path) -> None:
    canaries = Canaries()
    secret = canaries.make("x", SPECIAL)
    raw = secret.encode()
    forms = [
        said(secret).encode(),
        raw.hex().encode(),
        base64.b64encode(b"a" + raw),
        base64.urlsafe_b64encode(b"ab" + raw),
    ]
    assert all(canaries.find(b"before " + form + b" after") == {"x"} for form in forms)
    assert all(canaries.find(form) == {"x"} for form in said(secret).encode().split(b"\n"))
    assert canaries.find(b"nothing") == set()
    findings = Findings(canaries)
    with sampled(findings):
        subprocess.run(["sh", "-c", "sleep 0.3", secret], env={"X": secret}, check=True)
    assert {where.partition(":")[0] for _, where in findings.found} == {"command lines", "environments"}
