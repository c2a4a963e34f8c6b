"""The supervisor of a job on several machines, at both ends of a link.

`run`: the coordinator's attempt (`world.py`, `gathering.py`) and an agent's end (`uplink.py`). `watch`: each node's end
(`watchlink.py`), and the small coordinator that node 0 starts beside its engine (`seat.py`, `council.py`). Links are in
`../../nodes/`, the coordinator's nodes in `../../launchers/fleet.py`.
"""
