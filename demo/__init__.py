"""The main job, start to end, on a fleet of real SSH devices: `python -m demo`, or `make demo`.

It starts the service and a lab, and from then on is a user of the REST API like any other: it registers the fleet,
previews, runs `uptime` everywhere, changes passwords, reboots, and unplugs a device.  What the service claims is
checked from outside, past the service.  Exit status 0: all of it was so.  Whatever happens, all it started is stopped.

`__main__` starts and stops, `story` tells what happens; `service`, `api` and `fleet` are the service's side, `witness`
looks from outside, `terminal` prints.  Nothing but the standard library is used, and nothing of Django.
"""
