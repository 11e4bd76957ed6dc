"""What an operator does. Every operation returns a frozen result or yields steps; none prints."""
