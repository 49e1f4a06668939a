"""parallel-ssh (libssh2 in greenlets), 100 at once."""

import json
import sys

from pssh.clients import ParallelSSHClient

AT_ONCE = 100

with open(sys.argv[1], encoding="utf-8") as file:
    told = json.load(file)
names = {device["host"]: device["name"] for device in told["devices"]}
client = ParallelSSHClient(
    list(names), user=told["user"], port=told["devices"][0]["port"], pkey=told["key"], pool_size=AT_ONCE,
    allow_agent=False, identity_auth=False, timeout=60, num_retries=1,
)  # fmt: skip
for output in client.run_command(sys.argv[3], stop_on_errors=False):
    if output.exception:
        print(output.host, repr(output.exception), file=sys.stderr)
        continue
    list(output.stdout)
    client.join([output])
    if output.exit_code == 0:
        print("ok", names[output.host], flush=True)
