"""qctl that watches new workers for less time than it allows, for tests of something else.

Usually it calls new workers up after 1 s, and watches them for 5 s.
"""

from qctl.cli.main import main
from qctl.config import settings
from qctl.ops.processes import replacement, restart

restart.SETTLE_S = replacement.SETTLE_S = settings.DEFAULT_WATCH_S = 0.3
main()
