"""From what is known of a job to who failed first, and why: pure, no input or output, no clock.

Facts and nouns in (`case.Case`), a judgement out (`culprit.choose` → `Judged`, `verdict.verdict` → `Verdict`). It never
looks at the machine: whatever a judgement rests on is in the case, so that a journal gives the same verdict again.

Read next, in this order: `peers.py` (who is only a victim), `memory_story.py` (was it the OOM killer),
`failure_class.py` (how strong a suspect), `culprit.py` (which one), `causes.py` (why), `advice.py` (what to do),
`verdict.py` (the answer).
"""
