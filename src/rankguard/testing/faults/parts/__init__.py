"""What the victim of each fault does, a function each: `function(actor)`. They run in the ranks.

`prepare_FUNCTION` is done by every rank before it says that it is there, `others_FUNCTION` by all but the victim after.
"""
