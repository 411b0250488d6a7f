"""The benchmark harness.

It imports no library beyond Python's own: the peak memory that the kernel reports of a child is
never below that of the process that started it, so this process must stay small. What needs Arrow
(making tables, comparing results) runs in processes of its own.
"""
