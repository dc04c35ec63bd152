import time

from lightning_sd.text import strip_thinking


def test_many_opening_tags_take_linear_time():
    """A pattern that searches the end from every opening tag takes hours for this text."""
    start = time.monotonic()
    assert strip_thinking("<think>" * 700_000) == "<think>" * 700_000
    assert time.monotonic() - start < 5


def test_every_closed_block_goes_and_an_open_one_stays():
    assert strip_thinking("a<think>b</think>c<think>d</think>e<think>f") == "ace<think>f"
