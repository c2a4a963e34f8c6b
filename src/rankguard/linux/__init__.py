"""The edge to the kernel: processes, files, sockets, counters. Knows processes, not jobs.

One module a mechanism; each says which man page or kernel document its facts are from. Nothing here decides anything.
"""
