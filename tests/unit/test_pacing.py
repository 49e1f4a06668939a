"""How a run is cut into waves and slices."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pacing import Controls, amount, cut_waves


def waves(devices: int, **controls: Any) -> list[int]:
    """Devices in each wave."""
    sizes: dict[int, int] = {}
    for wave, size in cut_waves(Controls(**controls), devices):
        sizes[wave] = sizes.get(wave, 0) + size
    return [sizes[wave] for wave in sorted(sizes)]


@pytest.mark.parametrize(
    ("given_amount", "of", "means"),
    [(None, 10, None), (3, 10, 3), ("10%", 100, 10), ("1%", 5, 1), ("50%", 3, 2), ("0%", 9, 0), ("100%", 7, 7)],
)
def test_amounts_are_numbers_or_percentages(given_amount: Any, of: int, means: int | None) -> None:
    assert amount(given_amount, of) == means


def test_without_controls_there_is_one_wave() -> None:
    assert waves(450) == [450]


@pytest.mark.parametrize(
    ("cores", "devices", "sizes"),
    [
        (2, 1, [1]),
        (2, 100, [100]),
        (2, 150, [100, 50]),
        (2, 1000, [500, 500]),
        (2, 1001, [251, 251, 251, 248]),
        (3, 1000, [334, 334, 332]),
        (16, 1000, [100] * 10),
    ],
)
def test_slices_keep_all_cores_busy_and_start_ansible_seldom(
    monkeypatch: pytest.MonkeyPatch, cores: int, devices: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    assert [size for _, size in cut_waves(Controls(), devices)] == sizes


def test_a_slice_has_what_the_setting_says(settings: Any) -> None:
    settings.SLICE_SIZE = 40
    assert [size for _, size in cut_waves(Controls(), 100)] == [40, 40, 20]


def test_a_canary_goes_first() -> None:
    assert waves(100, canary=3) == [3, 97]
    assert waves(100, canary="10%") == [10, 90]
    assert waves(2, canary=5) == [2]


def test_a_ramp_doubles_up_to_the_limit() -> None:
    assert waves(100, ramp=True, max_concurrency=10) == [1, 2, 4, 8, 85]
    assert waves(100, ramp=True, max_concurrency=10, pause=1.0) == [1, 2, 4, 8, *[10] * 8, 5]


def test_with_a_pause_each_wave_is_as_large_as_the_limit() -> None:
    assert waves(25, max_concurrency=10, pause="manual", canary=1) == [1, 10, 10, 4]


@given(
    devices=st.integers(1, 3_000),
    limit=st.none() | st.integers(1, 500) | st.sampled_from(["1%", "33%", "100%"]),
    canary=st.none() | st.integers(1, 40),
    ramp=st.booleans(),
    pause=st.none() | st.just("manual"),
)
def test_every_device_is_in_one_slice_that_fits_the_limit(
    devices: int, limit: Any, canary: int | None, ramp: bool, pause: Any
) -> None:
    controls = Controls(max_concurrency=limit, canary=canary, ramp=ramp, pause=pause)
    slices = list(cut_waves(controls, devices))
    assert sum(size for _, size in slices) == devices
    assert [wave for wave, _ in slices] == sorted(wave for wave, _ in slices)
    most = amount(limit, devices) or devices
    assert all(0 < size <= most for _, size in slices)
