"""What the rounds in CHAOS_REPORT came to: python -m tests.chaos FILE..."""

import json
import sys
from collections import Counter
from pathlib import Path

from tests.chaos.fleet import COMMAND


def main(*files: str) -> None:
    """A line for each kind of fault: rounds, how many struck what worked for the run, seconds until all had ended."""
    rounds = [json.loads(line) for file in files for line in Path(file).read_text().splitlines()]
    for each in [each for each in rounds if "most" in each]:
        rounds.remove(each)
        told = "{kind}: {most} devices at once with {workers} workers, {most_without} without the limit\n"
        sys.stdout.write(told.format(**each))
    head = f"{'fault':<22}{'rounds':>8}{'hit':>6}{'playbooks':>11}{'median s':>10}{'slowest s':>11}"
    sys.stdout.write(f"{head}  devices by status\n")
    for kind in sorted({each["kind"] for each in rounds}):
        of_kind = [each for each in rounds if each["kind"] == kind]
        seconds = sorted(each["seconds"] for each in of_kind)
        counts: Counter[str] = Counter()
        for each in of_kind:
            counts.update(each["counts"])
        hits, said = (
            [each for each in of_kind if each["hit"]],
            ", ".join(f"{n} {name}" for name, n in counts.most_common()),
        )
        playbooks = sum(each["of"] != COMMAND for each in hits)
        median, slowest = seconds[len(seconds) // 2], seconds[-1]
        line = f"{kind:<22}{len(of_kind):>8}{len(hits):>6}{playbooks:>11}{median:>10.1f}{slowest:>11.1f}"
        sys.stdout.write(f"{line}  {said}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
