"""The limit of one process: a burst, and then a rate."""

from ocmt.platform.bucket import Bucket


def test_a_burst_gets_through_and_then_a_rate() -> None:
    bucket = Bucket(rate=10, burst=100)
    bucket.pour(100, 1)
    assert not bucket.wait(0, 1)
    bucket.pour(20, 2)
    assert bucket.wait(0, 2) == 1
    assert not bucket.wait(0, 3)


def test_it_says_when_the_next_fits_in() -> None:
    bucket = Bucket(rate=2, burst=1)
    assert bucket.wait(1, 5) == 0
    bucket.pour(1, 5)
    assert bucket.wait(1, 5) == 0.5
    assert bucket.wait(1, 5.5) == 0
