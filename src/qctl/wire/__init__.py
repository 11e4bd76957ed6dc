"""The BullMQ format: key names, job records, transitions, events. Nothing else composes a key.

"Wire format 5.8", or a number such as (5.8) alone, is a section of docs/wire-format.md; P1-P18 are
its primitives, T1, T2 … its traps.
"""
