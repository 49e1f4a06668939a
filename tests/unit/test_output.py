"""What a device printed, cut to what a row holds."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.output import cut, last_words


def test_a_short_output_is_kept_as_it_is() -> None:
    assert cut("hello\n", 100) == cut("hello\n", 6)
    assert cut("hello\n", 6).text == "hello\n"
    assert not cut("hello\n", 6).truncated


def test_a_long_output_keeps_head_and_tail() -> None:
    shown = cut("HEAD" + "x" * 1_000 + "TAIL", 100)
    assert shown.truncated
    assert shown.size == 1_008
    assert shown.text.startswith("HEAD")
    assert shown.text.endswith("TAIL")
    assert "908 bytes are missing" in shown.text


@given(st.text(st.characters(codec=None)), st.integers(min_value=2, max_value=64))
def test_whatever_a_device_prints_can_be_stored(text: str, limit: int) -> None:
    shown = cut(text, limit)
    shown.text.encode()
    assert "\x00" not in shown.text
    assert len(shown.text.encode()) <= max(limit + 60, 2 * limit)


def test_the_last_words_of_a_traceback_are_its_last_line() -> None:
    full = "[Errno 28] No space left on device"
    said = [
        "Traceback (most recent call last):",
        f'  File "awx_display.py", line 131, in set\n    os.open()\nOSError: {full}',
    ]
    assert last_words(said) == f"OSError: {full}"
    assert last_words(["ERROR! no such playbook", "", " See the documentation."]) == (
        "ERROR! no such playbook\nSee the documentation."
    )
