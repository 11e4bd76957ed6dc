import pytest

# So that an assertion in a lab shows its values, as one in a test does.
pytest.register_assert_rewrite("tests.labs")
