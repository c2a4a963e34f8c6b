"""What a job on several machines is made of, on either side: the link between an agent and its coordinator (`link.py`),
the clocks of two machines (`offset.py`), one node's facts as facts of the world (`mapping.py`).

Not here: who launches and who decides (`launchers/nodes.py`, `supervisor/`). Nothing of it is loaded for a job on one
machine. Uses the nouns and the wire; knows neither core nor diagnosis.
"""
