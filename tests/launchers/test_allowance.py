"""What may come by the thousand, told in moderation."""

from rankguard.launchers.allowance import Allowance


def test_some_at_once_and_a_few_as_time_passes():
    allowance = Allowance(3, 10.0)

    assert [allowance.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert [allowance.take(105.0), allowance.take(109.9)] == [False, False]
    assert [allowance.take(110.1), allowance.take(110.2)] == [True, False]
    assert allowance.refused == 5
    assert [allowance.take(1e6) for _ in range(4)] == [True, True, True, False]
