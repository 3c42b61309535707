"""One thread per test process, and a measurement lane that no other program waits in."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests share the cores among themselves
os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="nas-tests-")
atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
