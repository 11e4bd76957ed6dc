"""``qctl mcp``: a server of the Model Context Protocol whose tools are qctl's own commands."""
