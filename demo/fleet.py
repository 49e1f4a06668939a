"""The lab's devices in the service: registered over the API, their host keys pinned."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from demo.api import Api
from lab import DeviceInfo, Kind

AT_ONCE = 8  # requests
LOCATIONS = ("north", "south")
GROUPS = {Kind.OPENWRT: "routers", Kind.LINUX: "servers"}


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the service calls the things that the demo registered."""

    organization: str
    locations: Mapping[str, str]  # name → id
    groups: Mapping[Kind, str]
    credentials: Mapping[Kind, str] = field(repr=False)
    devices: Mapping[str, str]  # name → id

    @classmethod
    def register(cls, api: Api, devices: Mapping[str, DeviceInfo], *, password: str) -> Self:
        """Make an organization, its locations, groups and credentials, and the devices in it."""
        organization = api.post("controller/organization/", {"name": "Demo"})["id"]

        def make(kind: str, name: str, **values: Any) -> str:
            row = api.post(f"controller/{kind}/", {"organization": organization, "name": name, **values})
            return str(row["id"])

        locations = {name: make("location", name) for name in LOCATIONS}
        groups = {kind: make("group", name) for kind, name in GROUPS.items()}
        credentials = {
            kind: make("credential", f"root of all {name}", username="root", password=password)
            for kind, name in GROUPS.items()
        }

        def register(number: int, device: DeviceInfo) -> str:
            return make(
                "device",
                device.name,
                host=device.address,
                port=device.port,
                platform=device.kind,
                group=groups[device.kind],
                location=locations[LOCATIONS[number % len(LOCATIONS)]],
                credentials=[credentials[device.kind]],
            )

        with ThreadPoolExecutor(AT_ONCE) as pool:
            ids = pool.map(register, range(len(devices)), devices.values())
            made = dict(zip(devices, ids, strict=True))
        return cls(organization=organization, locations=locations, groups=groups, credentials=credentials, devices=made)

    def ids(self, names: Iterable[str]) -> list[str]:
        """The ids of these devices."""
        return [self.devices[name] for name in names]

    def pin_host_keys(self, api: Api) -> dict[str, str]:
        """Have the service ask each device for its host key, and accept the one of the fingerprint that it shows;
        key by name, to be compared with the known.
        """

        def pin(device: str) -> str:
            address = f"controller/device/{device}/host-key/"
            shown = api.post(address, {})["shown_fingerprint"]
            return str(api.post(address, {"fingerprint": shown})["host_key"])

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(self.devices, pool.map(pin, self.devices.values()), strict=True))
