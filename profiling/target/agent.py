"""The agent: the program that runs on a target and times models there.

`profiling.target.channel` sends the text of this file through ssh to a Python interpreter, so it
imports nothing of this project: it needs Python 3.8, numpy and onnxruntime. Requests arrive as
frames on standard input, and answers leave as frames on standard output. The agent opens no port,
and writes no files but the locks of the measurement lane. It ends when its input ends. It also ends
when no byte has arrived for some time, because nothing reports a pulled cable.

A measurement means the same as in `profiling.latency`: warm-up, untimed passes before each sample,
shuffled rounds in which every model is timed once.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import math
import os
import platform
import queue
import random
import signal
import stat
import struct
import sys
import sysconfig
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any, Callable, Dict, Iterator, Mapping, Tuple

START = b"\n<nas agent>\n"
"""Precedes the first frame. Login shells may print something before it."""

SILENCE_S = 30.0
"""The agent ends when no byte has arrived for this time; a `hello` may set another one."""

MAX_HEADER, MAX_PAYLOAD = 2**24, 2**33
_SIZES = struct.Struct(">IQ")
_CHUNK = 2**16
_PAUSE_S = 0.01
"""Pause after a measurement, as in `profiling.lane`."""

Header = Dict[str, Any]
Frame = Tuple[Header, bytes]
Pass = Callable[[], Any]


def write_frame(
    stream: IO[bytes], header: Header, payload: bytes = b"", moved: Pass = lambda: None
) -> None:
    """Write a frame: the sizes of header and payload, the header as JSON, the payload.

    Args:
        stream: Where to write.
        header: Content as plain JSON types.
        payload: Further content.
        moved: Called after each part of the payload.
    """
    text = json.dumps(header).encode()
    stream.write(_SIZES.pack(len(text), len(payload)) + text)
    for start in range(0, len(payload), _CHUNK):
        stream.write(payload[start : start + _CHUNK])
        moved()
    stream.flush()


def read_frame(stream: Any, moved: Pass = lambda: None) -> Frame:
    """Read a frame.

    Args:
        stream: A buffered binary stream.
        moved: Called after each part that arrives.

    Raises:
        EOFError: the stream ended.
        ValueError: what arrived is no frame.
    """
    sizes = _SIZES.unpack(_read(stream, _SIZES.size, moved))
    if sizes[0] > MAX_HEADER or sizes[1] > MAX_PAYLOAD:
        raise ValueError("not a frame")
    header, payload = (_read(stream, size, moved) for size in sizes)
    return dict(json.loads(header)), payload


def _read(stream: Any, size: int, moved: Pass) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = stream.read1(min(size - len(content), _CHUNK))
        if not part:
            raise EOFError
        content += part
        moved()
    return bytes(content)


class ModelError(Exception):
    """A model cannot be loaded or run."""


class Agent:
    """Answers the requests of one client, one after another.

    Args:
        source: Stream of the requests.
        out: Stream of the answers.
    """

    def __init__(self, source: Any, out: IO[bytes]) -> None:
        self._source, self._out, self._writing = source, out, threading.Lock()
        self._requests: queue.Queue[Frame] = queue.Queue()
        self._silence_s = SILENCE_S
        self._models: dict[str, bytes] = {}
        self._ready: dict[tuple[str, int], _Session] = {}

    def serve(self) -> None:
        """Answer requests until the process ends."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            request, payload = self._requests.get()
            try:
                getattr(self, f"do_{request['do']}")(request, payload)
            except ModelError as error:
                self.answer({"is": "error", "text": str(error), "of_model": True})
            except Exception as error:
                self.answer({"is": "error", "text": _first_line(error)})

    def answer(self, header: Header, payload: bytes = b"") -> None:
        """Send a frame to the client."""
        with self._writing:
            write_frame(self._out, header, payload)

    def _listen(self) -> None:
        """Queue the requests and answer heartbeats; end the process with the connection."""
        try:
            while True:
                request, payload = read_frame(self._source, self._postpone_end)
                if request.get("do") == "beat":
                    self.answer({"is": "beat"})
                else:
                    self._requests.put((request, payload))
        finally:
            os._exit(0)

    def _postpone_end(self) -> None:
        """Let the kernel end this process, whatever it does, unless another byte arrives."""
        signal.setitimer(signal.ITIMER_REAL, self._silence_s)

    def do_hello(self, request: Header, payload: bytes) -> None:
        """Describe this machine."""
        self._silence_s = request["silence_s"]
        self.answer({"is": "hello", "facts": facts()})

    def do_keep(self, request: Header, payload: bytes) -> None:
        """Keep a model for later requests, and of the others only those that are listed."""
        kept = {
            digest: model for digest, model in self._models.items() if digest in request["keep"]
        }
        self._models = {**kept, request["digest"]: payload}

    def do_outputs(self, request: Header, payload: bytes) -> None:
        """Run a model once and send its outputs."""
        import numpy as np

        arguments = _arrays(request, payload, {})
        with _faults_of_model(""):
            outputs = self._reused(request["digest"], request["threads"]).run(arguments)
        found = [np.ascontiguousarray(array) for array in outputs]
        described = [{"shape": array.shape, "dtype": str(array.dtype)} for array in found]
        self.answer({"is": "outputs", "arrays": described}, b"".join(a.tobytes() for a in found))

    def _reused(self, digest: str, threads: int) -> _Session:
        """Return a session of a model; those of the last two are kept, which run many images."""
        key = digest, threads
        if key not in self._ready:
            for oldest in list(self._ready)[:-1]:
                del self._ready[oldest]
            self._ready[key] = _Session(self._models[digest], threads)
        return self._ready[key]

    def do_measure(self, request: Header, payload: bytes) -> None:
        """Time models in shuffled rounds while the lane is held.

        Without a model, time a product of matrices, which shows how quiet the machine is.
        """
        self._ready.clear()  # their threads and memory are not those of the models that are timed
        config = request["config"]
        with lane(lambda: self.answer({"is": "waiting"})):
            passes = self._sessions(request, payload) if request["models"] else _matmul()
            with _no_garbage_collection():
                warmups = {name: warm_up(run, config) for name, run in passes.items()}
                plans = {name: plan(times[-1], config) for name, times in warmups.items()}
                self.answer({"is": "warm", "warmups": warmups, "plans": plans})
                before = busy_s()
                self._rounds(passes, plans, config)
                load = load_since(before)
        self.answer({"is": "done", "load": load})

    def _sessions(self, request: Header, payload: bytes) -> dict[str, Pass]:
        """Return a function for each model that runs it, with the next batch at each call."""
        known: dict[str, Any] = {}
        passes = {}
        for name, digest in request["models"].items():
            batches = [_arrays(batch, payload, known) for batch in request["batches"][name]]
            with _faults_of_model(f"{name!r}: "):
                session = _Session(self._models[digest], request["config"]["threads"])
                session.run(batches[0])
            passes[name] = session.in_turn(batches)
        return passes

    def _rounds(
        self, passes: Mapping[str, Pass], plans: Mapping[str, tuple[int, int]], config: Header
    ) -> None:
        """Send one sample of each model per round, until the client or a limit ends it."""
        shuffle = random.Random(config["seed"]).shuffle
        order, spent_ms, due = list(passes), 0.0, config["min_rounds"]
        for done in range(1, config["max_rounds"] + 1):
            shuffle(order)
            samples = {}
            for name in order:
                samples[name] = timed(passes[name], *plans[name])
                spent_ms += sum(plans[name]) * samples[name][0]
            last = done == config["max_rounds"] or (done > 1 and spent_ms >= 1000 * config["max_s"])
            asks = done >= due and not last
            self.answer({"is": "round", "samples": samples, "asks": asks})
            if last or (asks and self._requests.get()[0]["enough"]):
                break
            if asks:
                due = math.ceil(done * 1.25)


class _Session:
    """A model in ONNX Runtime, with the options of `profiling.onnx_export.onnxruntime_session`.

    Args:
        content: The model.
        threads: Number of threads.
    """

    def __init__(self, content: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(content, options, providers=providers)
        self._names = [node.name for node in self._session.get_inputs()]

    def run(self, arrays: list[Any]) -> list[Any]:
        """Return the outputs for one batch."""
        outputs: list[Any] = self._session.run(None, self._named(arrays))
        return outputs

    def in_turn(self, batches: list[list[Any]]) -> Pass:
        """Return a function that runs the model with the next batch at each call."""
        turns, run = itertools.cycle([self._named(arrays) for arrays in batches]), self._session.run
        return lambda: run(None, next(turns))

    def _named(self, arrays: list[Any]) -> dict[str, Any]:
        if len(arrays) != len(self._names):
            raise ValueError(f"{len(arrays)} inputs are given, it has {len(self._names)}")
        return dict(zip(self._names, arrays))


def _arrays(described: Header, payload: bytes, known: dict[str, Any]) -> list[Any]:
    """Return the described arrays of a payload, each in memory of its own, which is aligned.

    Arrays that are described alike are one array, which `known` holds.
    """
    import numpy as np

    found = []
    for one in described["arrays"]:
        key = json.dumps(one)
        if key not in known:
            count = math.prod(one["shape"])
            flat = np.frombuffer(payload, np.dtype(one["dtype"]), count, one["offset"])
            known[key] = flat.reshape(one["shape"]).copy()
        found.append(known[key])
    return found


def _matmul() -> dict[str, Pass]:
    """Return a pass of 57 million multiply-adds."""
    import numpy as np

    factor = np.full((384, 384), 0.5, np.float32)
    return {"matmul": lambda: factor @ factor}


@contextmanager
def _faults_of_model(name: str) -> Iterator[None]:
    """Turn any error of the body into a `ModelError`."""
    try:
        yield
    except Exception as error:
        raise ModelError(name + _first_line(error)) from None


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def warm_up(run: Pass, config: Header) -> list[float]:
    """Run until the medians of two successive windows agree; return all times in ms."""
    times: list[float] = []
    window = config["warmup_window"]
    while len(times) < config["max_warmup"] and sum(times) < 1000 * config["max_warmup_s"]:
        times.append(timed(run, 0, 1)[0])
        if len(times) >= 2 * window and len(times) % window == 0:
            before, now = median(times[-2 * window : -window]), median(times[-window:])
            if abs(now - before) <= config["warmup_tolerance"] * before:
                break
    return times


def plan(pass_ms: float, config: Header) -> tuple[int, int]:
    """Return the numbers of untimed and of timed passes of a sample."""
    if pass_ms <= 0:
        return 1, 1
    primings, repeats = (config[key] / pass_ms for key in ("priming_ms", "min_sample_ms"))
    return max(1, round(primings)), max(1, round(repeats))


def timed(run: Pass, primings: int, repeats: int) -> tuple[float, float]:
    """Return wall and CPU time of a pass in ms, the mean of `repeats` passes after untimed ones."""
    for _ in range(primings):
        run()
    cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
    for _ in range(repeats):
        run()
    wall_ns, cpu_ns = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
    return wall_ns / 1e6 / repeats, cpu_ns / 1e6 / repeats


@contextmanager
def lane(waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the measurement lane of this machine's CPU, that of `profiling.lane`, in the body.

    Args:
        waiting: Called if another measurement holds it.
    """
    import fcntl  # missing on Windows, where the client imports this file

    folder = Path(os.environ.get("NAS_LANE_DIR") or "/tmp/nas-lanes")
    _make_shared_folder(folder)
    with _shared_file(folder / "cpu.door") as door, _shared_file(folder / "cpu.room") as room:
        try:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            waiting()
            fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX)  # a training releases it at its next batch boundary
        yield
    time.sleep(_PAUSE_S)


def _make_shared_folder(folder: Path) -> None:
    """Make a folder as `profiling.shared_files.make_shared_folder` does."""
    if not os.path.lexists(folder):
        partial = Path(tempfile.mkdtemp(prefix=".nas-", dir=folder.parent))
        partial.chmod(0o1777)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster
            partial.rmdir()


def _shared_file(path: Path) -> IO[bytes]:
    """Open a file as `profiling.shared_files.open_shared_file` does."""
    if not os.path.lexists(path):
        descriptor, partial = tempfile.mkstemp(prefix=".nas-", dir=path.parent)
        os.fchmod(descriptor, 0o444)
        os.close(descriptor)
        try:
            os.link(partial, path)
        except FileExistsError:  # another process was faster
            pass
        finally:
            Path(partial).unlink()
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "not a regular file", str(path))
    return file


def busy_s() -> tuple[float, float, float]:
    """Return the time, and the CPU seconds of other processes and of the hypervisor since boot."""
    words = _text("/proc/stat").split("\n", 1)[0].split()[1:9]
    if len(words) < 8:
        return time.monotonic(), math.nan, math.nan
    spent = [int(word) / os.sysconf("SC_CLK_TCK") for word in words]
    idle_s, waiting_s, stolen_s = spent[3], spent[4], spent[7]
    own = os.times()
    others_s = sum(spent) - idle_s - waiting_s - stolen_s - own.user - own.system
    return time.monotonic(), others_s, stolen_s


def load_since(before: tuple[float, float, float]) -> Header | None:
    """Return the load by other work as `profiling.load.Load` has it; None if it is unknown."""
    span_s, *spent = (now - then for now, then in zip(busy_s(), before))
    if math.isnan(spent[0]):
        return None
    core_s = max(span_s, 1e-9) * (os.cpu_count() or 1)
    others, stolen = (min(1.0, max(0.0, one / core_s)) for one in spent)
    return {"span_s": span_s, "others": others, "stolen": stolen, "clock_mhz": clock()["clock_mhz"]}


def facts() -> Header:
    """Return the properties of this machine; None stands for what is unknown or missing."""
    reasons = {name: _reason_missing(name) for name in ("numpy", "onnxruntime")}
    return {
        "machine": hashlib.sha256(_text("/etc/machine-id").encode()).hexdigest()[:12],
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cpus(),
        "memory_kib": _number(_field("/proc/meminfo", "MemTotal").split(" ")[0]),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "executable": sys.executable,
        "managed": _managed(),
        "numpy": None if reasons["numpy"] else sys.modules["numpy"].__version__,
        "onnxruntime": None if reasons["onnxruntime"] else sys.modules["onnxruntime"].__version__,
        "missing": {name: reason for name, reason in reasons.items() if reason},
        "temperature_c": _temperature_c(),
        **clock(),
    }


def clock() -> Header:
    """Return the frequency policy, the current clock and its limit in MHz."""
    folder = "/sys/devices/system/cpu/cpu0/cpufreq/"
    now, limit = (_number(_text(folder + f"scaling_{name}_freq")) for name in ("cur", "max"))
    return {
        "governor": _text(folder + "scaling_governor") or None,
        "clock_mhz": now / 1000 if now else _number(_field("/proc/cpuinfo", "cpu MHz")),
        "max_clock_mhz": limit / 1000 if limit else None,
    }


def _processor() -> str:
    """Return the name of an ARM board, or of the processor."""
    board = _text("/proc/device-tree/model").strip("\0")
    if board and not board.startswith("linux,"):  # a virtual machine
        return board
    return _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _cpus() -> int:
    return os.cpu_count() or 1


def _managed() -> bool:
    """Return whether the system's package manager forbids pip to install (PEP 668)."""
    folder = Path(sysconfig.get_path("stdlib"))
    return sys.prefix == sys.base_prefix and (folder / "EXTERNALLY-MANAGED").exists()


def _temperature_c() -> float | None:
    zones = Path("/sys/class/thermal").glob("thermal_zone*/temp")
    known = [value for value in (_number(_text(zone)) for zone in zones) if value is not None]
    return max(known) / 1000 if known else None


def _reason_missing(package: str) -> str:
    """Return why a package cannot be imported; an empty text if it can."""
    try:
        __import__(package)
    except Exception as error:
        return _first_line(error)
    return ""


def _field(path: str, name: str) -> str:
    """Return the first value of a field in a file of lines `name: value`, or an empty text."""
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def main() -> None:
    """Serve the client at the other end of standard input and output."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # read when numpy is imported
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between the frames
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, SILENCE_S)
    out.write(START)
    out.flush()
    Agent(sys.stdin.buffer, out).serve()


if __name__ == "__main__":
    main()
