"""How a result looks: tables, JSON, escaping. Knows result types; never talks to Redis."""
