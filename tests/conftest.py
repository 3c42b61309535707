"""One thread per test process: the tests share the cores among themselves."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
