"""How an impact looks: a heading, a table of aspects, the best time, the verdict."""
