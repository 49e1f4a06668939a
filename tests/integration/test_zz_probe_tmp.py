import json, time, resource, pytest
from typing import Any
from tests import factories
from tests.integration.api_addresses import *
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("outbox")]

def test_amplify(api):
    c = api(factories.superuser())
    for field, n in (("devices", 2_400_000), ("tags", 1_000_000)):
        body = json.dumps({"type": "reboot", field: [0] * n})
        for path in (PREVIEW,):
            t = time.time(); r = c.generic("POST", path, body, "application/json")
            print(field, len(body), r.status_code, len(r.content), round(time.time()-t, 1), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024, "MB")
    body = json.dumps({"type": "reboot", **{f"k{i}": 0 for i in range(400_000)}})
    t = time.time(); r = c.generic("POST", PREVIEW, body, "application/json")
    print("unknown", len(body), r.status_code, len(r.content), round(time.time()-t, 1), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024, "MB")
    body = json.dumps({"type": "custom", "all_devices": True, "input": {"command": "x", **{f"k{i}": 0 for i in range(400_000)}}})
    t = time.time(); r = c.generic("POST", PREVIEW, body, "application/json")
    print("input", len(body), r.status_code, len(r.content), round(time.time()-t, 1), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024, "MB")

def test_misc(api):
    root = factories.superuser()
    c = api(root)
    d = factories.device()
    run = launch(c, devices=[str(d.pk)])
    r = c.delete(f"{ORGANIZATIONS}{d.organization_id}/"); print("delete org with active run", r.status_code, r.content)
    print("run after", c.get(f"{RUNS}{run['id']}/").status_code)
    d = factories.device(); d2 = factories.device()
    run = launch(c, devices=[str(d.pk), str(d2.pk)])
    r = c.delete(f"{ORGANIZATIONS}{d.organization_id}/"); print("delete org within active system-wide run", r.status_code, r.content)
    x = c.get(f"{RUNS}{run['id']}/").json(); print("after", x.get("device_count"), x.get("counts"), len(x["commands"]["results"]))
    o = factories.organization()
    for b in ({"private_key": "  \n"}, {"password": ""}, {"password": " "}):
        r = c.post(CREDENTIALS, {"organization": str(o.pk), "name": f"n{b}", **b}); print(b, r.status_code, r.content[:150])
    for q in ("created_after=2026-01-01", "created_after=2026-01-01T00:00:00Z", "created_after=2026-01-01T00:00:00%2B00:00", "created_after=2026-01-01T00:00:00+00:00", "status=failed,success", "status=failed&status=success", "organization="+str(o.pk).upper(), "format=json", "ordering=created", "created_before=9999-12-31T23:59:59-14:00"):
        r = c.get(RUNS+"?"+q); print(q, r.status_code, r.content[:140])
    print("options", c.options(RUNS).status_code, c.options(RUNS).content[:300])
    print("detail unknown", c.get(f"{DEVICES}{d2.pk}/?x=1").status_code)
    for m in ("head",):
        print(m, getattr(c, m)(RUNS).status_code)
    print(c.get(RUNS).headers)
    print("no slash", c.post(CONTROLLER+"batch-command", {}).status_code, c.get(CONTROLLER+"batch-command").status_code)

def test_foreign_via_idem(api):
    pass
