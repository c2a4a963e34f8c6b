"""Row i. What a fact costs in the core, from 10 to 100,000 simulated ranks (`core_cost.py`): our own time on a processor.

A job is spawned, becomes ready, loses a rank, is judged, ends and is reaped; only `step` is timed. No peer has such a
part. What has to be reached: 20 µs for each size, and 2.5 times the smallest for the largest at most.
"""

from bench import core_cost
from bench.measure import Line, Series
from bench.setting import Setting


def run(setting: Setting) -> list[Line]:
    sizes = core_cost.SIZES[:2] if setting.quick else core_cost.SIZES
    lines = []
    for size in sizes:
        setting.tell(f"{size:,} ranks")
        line = Line(
            "i",
            f"cost of a fact, {size:,} ranks",
            "µs",
            Series("rankguard", core_cost.measure(size, setting.repeats(core_cost.REPETITIONS))),
        )
        line.reach = f"≤ {core_cost.LIMIT_US:.0f} µs"
        line.reached = line.ours.median <= core_cost.LIMIT_US
        lines.append(line)
    ratio = lines[-1].ours.median / lines[0].ours.median
    lines[-1].reach += f", ≤ {core_cost.LIMIT_RATIO} × {sizes[0]} ranks"
    lines[-1].reached = lines[-1].reached and ratio <= core_cost.LIMIT_RATIO
    lines[-1].note = f"{ratio:.2f} × {sizes[0]} ranks"
    return lines
