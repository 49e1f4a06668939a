"""What the rounds in CHAOS_REPORT came to: python -m tests.chaos FILE."""

import json
import sys
from collections import Counter
from pathlib import Path


def main(file: str) -> None:
    """A line for each kind of fault: rounds, how many met a living victim, seconds until all had ended, statuses."""
    rounds = [json.loads(line) for line in Path(file).read_text().splitlines()]
    sys.stdout.write(f"{'fault':<22}{'rounds':>8}{'hit':>6}{'median s':>10}{'slowest s':>11}  devices by status\n")
    for each in [each for each in rounds if "most" in each]:
        rounds.remove(each)
        told = "{kind}: {most} devices at once with {workers} workers, {most_without} without the limit\n"
        sys.stdout.write(told.format(**each))
    for kind in sorted({each["kind"] for each in rounds}):
        of_kind = [each for each in rounds if each["kind"] == kind]
        seconds = sorted(each["seconds"] for each in of_kind)
        counts: Counter[str] = Counter()
        for each in of_kind:
            counts.update(each["counts"])
        hit, said = sum(each["hit"] for each in of_kind), ", ".join(f"{n} {name}" for name, n in counts.most_common())
        median, slowest = seconds[len(seconds) // 2], seconds[-1]
        sys.stdout.write(f"{kind:<22}{len(of_kind):>8}{hit:>6}{median:>10.1f}{slowest:>11.1f}  {said}\n")


if __name__ == "__main__":
    main(sys.argv[1])
