"""Faults by rule: what a cloud does to its clients on a bad day, chosen by call, counted and logged.

`rules` says what may be ordered, `loading` reads it, `book` decides which rule's turn it is and keeps the log. The
faults happen in three places: `calls` around an action (errors, stale reads), `replies` in the ASGI layer (all that
happens to a connection), and the hooks of the engine and of the disk files. `admin` is the way in at run time.
"""
