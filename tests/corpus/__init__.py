"""Texts that users may type and that nobody may evaluate; data for tests."""

import json
from pathlib import Path
from typing import Final

CANARY: Final = Path("/tmp/corpus-canary")  # what the commands among them would make


def injections() -> list[str]:
    """The texts of injection.json."""
    cases = json.loads((Path(__file__).parent / "injection.json").read_text())
    return [case["text"] * case.get("times", 1) for case in cases]
