"""The impact of a restart as text: a heading, a table of aspects, the best time, the verdict."""
