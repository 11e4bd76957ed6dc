"""The live full-screen view. All modules except ``tables`` and ``actions`` import Textual."""
