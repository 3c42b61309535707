"""One thread per test process, and a measurement lane that no other program waits in."""

import atexit
import os
import shutil
import signal
import tempfile

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts tests in the background has it ignored, and every process below too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests share the cores among themselves
os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="nas-tests-")
atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
