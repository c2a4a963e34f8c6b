"""Cells for the nodes of a job on several machines: who has joined, who is lost. Read next: `stopping.py`."""

from rankguard.core.clocks import Orders
from rankguard.core.job import Job
from rankguard.facts import NodeJoined, NodeLost


def joined(job: Job, fact: NodeJoined) -> Orders:
    if not fact.again:
        job.remember(fact.at, f"node {fact.node} ({fact.name}) joined")
    job.nodes[fact.node] = fact
    return ()


def lost(job: Job, fact: NodeLost) -> Orders:
    job.remember(fact.at, fact.statement)
    job.lost_nodes[fact.node] = fact
    return ()
