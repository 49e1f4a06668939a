"""What the benchmark makes of its measurements."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.measurement import Measurement
from benchmarks.processes import Process, tree


def measured(rate: float, **values: Any) -> Measurement:
    """A go over a hundred devices."""
    known: dict[str, Any] = {"succeeded": 100, "first": 0.5, "cpu": {"client": 2.0, "server": 1.8}, "memory": 50.0}
    return Measurement(devices=100, seconds=100 / rate, **(known | values))


RESULT = {
    ("OpenSSH", 100, "ssh2-python"): [measured(100), measured(50), measured(90)],
    ("OpenSSH", 100, "asyncssh"): [measured(80), measured(80), measured(80)],
    ("OpenSSH", 100, "ansible raw"): [measured(10), measured(10), measured(10, succeeded=99)],
    ("OpenSSH", 100, "service"): [
        measured(rate, cpu={"client": 3.0, "service": 1.0, "ansible and ssh": 2.0, "server": 1.8})
        for rate in (50, 40, 45)
    ],
}
ABOUT = {"rounds": 3, "quick": False}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of its own."""
    monkeypatch.setattr(report, "PROJECT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "CHART", tmp_path / "chart.svg")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    text = f"Before.\n{report.MARKS[0]}old\n{report.MARKS[1]}After.\n"
    (tmp_path / "page.md").write_text(text)
    return tmp_path / "page.md"


def test_ratios_are_of_one_round_and_the_median_of_all(page: Path) -> None:
    report.write(RESULT, about=ABOUT, publish=True)
    [path] = (page.parent / "results").iterdir()
    told = json.loads(path.read_text())
    rows = {row["name"]: row for row in told["results"]}
    assert rows["service"]["rate"] == pytest.approx(45)
    assert rows["service"]["of_the_limit"] == pytest.approx(0.5)  # 50/100, 40/80, 45/90
    assert rows["service"]["cpu_ms"]["ansible and ssh"] == pytest.approx(20)
    assert [each["rate"] for each in rows["asyncssh"]["rounds"]] == pytest.approx([80, 80, 80])
    assert told["about"]["ansible-core"].startswith("2.")
    text = page.read_text()
    assert text.startswith("Before.\n<!-- results -->\n![Devices a second](chart.svg)\n\nMeasured ")
    assert text.endswith("<!-- end of results -->\nAfter.\n")
    assert "old" not in text
    assert "| 100 (99 succeeded) | 10.0 |" in text
    assert "0.50 of the best bare client (target 0.8); 4.50 times stock `raw` at its defaults (target 6.0)" in text
    assert (page.parent / "chart.svg").read_text().count("<rect") == 5


def test_a_part_of_it_publishes_nothing(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = page.read_text()
    report.write(RESULT, about=ABOUT, publish=False)
    assert page.read_text() == before
    assert not (page.parent / "results").exists()
    assert "**service**" in capsys.readouterr().out


def test_a_tree_is_what_descends_from_its_roots_but_for_what_is_left_out() -> None:
    parents = {1: 0, 2: 1, 3: 2, 4: 2, 5: 4, 6: 1}
    processes = {pid: Process(pid, parent, 1.0, 0.5) for pid, parent in parents.items()}
    assert {process.pid for process in tree([2, 99], processes, without=[4])} == {2, 3}
