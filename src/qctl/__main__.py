"""Runs the command line: ``python -m qctl``."""

from qctl.cli.main import main

main()
