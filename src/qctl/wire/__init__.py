"""The BullMQ format: key names, job records, transitions, events. Only this package composes keys.

"Wire format 5.8", or just (5.8), is a section of docs/wire-format.md. P1-P18 are steps that several
transitions share; T1, T2 … are traps of the format.
"""
