"""Every fault of the laboratory, by name.

To add one: its function in `parts/`, its record in the file here that it belongs to. The tests, the matrix and
`docs/testing.md` follow from it.
"""

from rankguard.testing.faults.catalogue import collectives, crashes, endings, files, hangs, memory, output, processes
from rankguard.testing.faults.fault import Fault

_HOMES = (endings, crashes, processes, memory, files, hangs, output, collectives)

FAULTS: dict[str, Fault] = {fault.name: fault for home in _HOMES for fault in home.FAULTS}
"""Every fault by its name (docs/drills.md tells of each)."""
