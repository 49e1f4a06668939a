"""Medians and ratios of what was measured: as JSON, as a table and a chart in docs/."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.contenders import PROGRAMS, PROJECT
from benchmarks.measurement import Measurement

RESULTS: Final = PROJECT / "benchmarks" / "results"
PAGE: Final = PROJECT / "docs" / "benchmarks.md"
CHART: Final = PROJECT / "docs" / "benchmarks.svg"
MARKS: Final = ("<!-- results -->\n", "<!-- end of results -->\n")
BARE: Final = ("ssh2-python", "asyncssh")
# What issue 8 asks for: (what, the service's rate over whose, the least ratio)
TARGETS: Final = (
    ("of the best bare client", BARE, 0.80),
    ("times pyinfra", ("pyinfra",), 1.2),
    ("times stock `raw` at its defaults", ("ansible raw",), 6.0),
    ("times stock `command` at its defaults", ("ansible command",), 12.0),
)
ABOUT: Final = {program.name: program.about for program in PROGRAMS} | {
    "service": "POST to last row, SQLite, its defaults",
    "service on PostgreSQL": "POST to last row, PostgreSQL, its defaults",
}

Key = tuple[str, int, str]


def write(result: Mapping[Key, Sequence[Measurement]], *, about: Mapping[str, Any], publish: bool) -> None:
    """The JSON file, and unless only a part was measured the page and its chart."""
    rows = [_row(result, key) for key in result]
    told = {"about": {**about, **machine()}, "results": rows}
    name = "quick" if about["quick"] else "full"
    if publish:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{name}.json"
        path.write_text(json.dumps(told, indent=1) + "\n")
        print(f"Written: {path.relative_to(PROJECT)}")
    text = _page(told)
    print(text)
    if publish and not about["quick"]:
        section(PAGE, MARKS, f"![Devices a second]({CHART.name})\n\n{text}")
        CHART.write_text(_chart(rows))


def section(page: Path, marks: tuple[str, str], text: str) -> None:
    """Put the text between two marks of a page."""
    before, rest = page.read_text().split(marks[0])
    page.write_text(before + marks[0] + text + marks[1] + rest.split(marks[1])[1])


def _row(result: Mapping[Key, Sequence[Measurement]], key: Key) -> dict[str, Any]:
    """One contender over one number of devices: the medians of its rounds, and its part of the limit in each round."""
    fleet, devices, name = key
    rounds = result[key]
    limits = [result[fleet, devices, bare] for bare in BARE if (fleet, devices, bare) in result]
    parts = [each.rate / max(limit[number].rate for limit in limits) for number, each in enumerate(rounds) if limits]
    return {
        "fleet": fleet,
        "devices": devices,
        "name": name,
        "measured": rounds[0].devices,
        "succeeded": min(each.succeeded for each in rounds),
        "rate": median(each.rate for each in rounds),
        "of_the_limit": median(parts) if parts else None,
        "seconds": median(each.seconds for each in rounds),
        "first": median(each.first for each in rounds),
        "cpu_ms": {kind: 1000 * median(each.cpu[kind] / each.devices for each in rounds) for kind in rounds[0].cpu},
        "memory": median(each.memory for each in rounds),
        "rounds": [each.as_json() for each in rounds],
    }


def machine() -> dict[str, Any]:
    """What was measured on, and when."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.strip()
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "load": os.getloadavg()[2],
        "python": platform.python_version(),
        "ansible-core": version("ansible-core"),
        "ansible-runner": version("ansible-runner"),
        "ssh": ssh.split(",")[0],
    }


def _page(told: Mapping[str, Any]) -> str:
    about, rows = told["about"], told["results"]
    text = (
        f"Measured {about['at']}: {about['cores']} cores ({about['processor']}), the devices' server on the same ones; "
        f"median of {about['rounds']}; load average of the last quarter of an hour {about['load']:.1f}; Python "
        f"{about['python']}, ansible-core {about['ansible-core']}, ansible-runner {about['ansible-runner']}, "
        f"{about['ssh']}.\n\n"
    )
    for fleet, devices in dict.fromkeys((row["fleet"], row["devices"]) for row in rows):
        part = [row for row in rows if (row["fleet"], row["devices"]) == (fleet, devices)]
        text += f"### {fleet}, {devices} device{'s' if devices > 1 else ''}\n\n{_table(part)}{_targets(part)}\n"
    return text.rstrip() + "\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| | how | devices | devices/s | of the limit | s to the first | ms of CPU a device: client | server | MiB |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cpu = row["cpu_ms"]
        client = f"{cpu['client']:.1f}"
        if "service" in cpu:
            client += f" (service {cpu['service']:.1f}, Ansible and ssh {cpu['ansible and ssh']:.1f}"
            client += f"; database {cpu['database']:.1f})" if "database" in cpu else ")"
        part = f"{row['of_the_limit']:.2f}" if row["of_the_limit"] is not None else ""
        name = f"**{row['name']}**" if "service" in cpu else row["name"]
        missed = "" if row["succeeded"] == row["measured"] else f" ({row['succeeded']} succeeded)"
        lines.append(
            f"| {name} | {ABOUT[row['name']]} | {row['measured']}{missed} | {row['rate']:.1f} | {part} | "
            f"{row['first']:.2f} | {client} | {cpu['server']:.1f} | {row['memory']:.0f} |"
            if "server" in cpu
            else f"| {name} | {ABOUT[row['name']]} | {row['measured']}{missed} | {row['rate']:.1f} | {part} | "
            f"{row['first']:.2f} | {client} | | {row['memory']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _targets(rows: Sequence[Mapping[str, Any]]) -> str:
    """How far the service is from what it is meant to reach."""
    found = {row["name"]: row for row in rows}
    service = found.get("service")
    if service is None or service["fleet"] != "OpenSSH":
        return ""
    told = []
    for what, names, least in TARGETS:
        rates = [found[name]["rate"] for name in names if name in found]
        if rates and service["devices"] > 1:
            told.append(f"{service['rate'] / max(rates):.2f} {what} (target {least})")
    alone = found.get("ansible raw tuned")
    if alone and service["devices"] == 1:
        told.append(
            f"{service['seconds'] / alone['seconds']:.2f} times the time of ansible-playbook alone (target 1.3)"
        )
    return f"\nThe service: {'; '.join(told)}.\n" if told else ""


def _chart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Bars of devices a second over the most devices that OpenSSH was measured with."""
    most = max(row["devices"] for row in rows if row["fleet"] == "OpenSSH")
    shown = sorted(
        (row for row in rows if (row["fleet"], row["devices"]) == ("OpenSSH", most)), key=lambda row: -row["rate"]
    )
    widest, bar, left, width = max(row["rate"] for row in shown), 26, 190, 560
    parts = []
    for number, row in enumerate(shown):
        y = 34 + number * bar
        long = max(1.0, row["rate"] / widest * (width - left - 60))
        colour = "#0b7285" if row["name"].startswith("service") else "#adb5bd"
        parts.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(row["name"])}</text>'
            f'<rect x="{left}" y="{y}" width="{long:.0f}" height="18" rx="2" fill="{colour}"/>'
            f'<text x="{left + long + 6:.0f}" y="{y + 13}">{row["rate"]:.1f}</text>'
        )
    height = 44 + len(shown) * bar
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="13" fill="#212529">\n<rect width="{width}" height="{height}" fill="white"/>\n'
        f'<text x="8" y="20" font-weight="bold">Devices a second, {most} OpenSSH devices</text>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
