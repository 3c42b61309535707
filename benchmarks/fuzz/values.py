"""Malformed values for every type of option and argument."""

from __future__ import annotations

from dataclasses import dataclass

LONG = "9" * 5000
"""More digits than Python converts."""


@dataclass(frozen=True)
class Bad:
    """A malformed value.

    Attributes:
        text: The value.
        may_pass: Whether a command may accept it (a name that is odd but valid).
    """

    text: str
    may_pass: bool = False


def _all(*texts: str, may_pass: bool = False) -> tuple[Bad, ...]:
    return tuple(Bad(text, may_pass) for text in texts)


def tolerated(*bad: Bad) -> tuple[Bad, ...]:
    """Return the same values, which a command may accept."""
    return tuple(Bad(one.text, may_pass=True) for one in bad)


_NO_NUMBERS = _all(
    *("", " ", "x", "nan", "-nan", "inf", "-inf", "1e400", "-1e400", "0x_", "0x", LONG),
    *("2026-01-01", "1:30", "!!int 3", "!!float .inf", ".nan", ".inf", "true", "null", "[1]"),
    *(
        "\u0661\u0662",
        "\u00b2",
        "\uff11\uff12",
        "1,5",
        "1 2",
        "\x1b[31m5\x1b[0m",
        "5\n6",
        "--",
        "5;",
    ),
    *("{}", "*a", "&a", "%d", "$HOME", "-99999999999999999999", "-1"),
)
INTEGERS = (
    *_NO_NUMBERS,
    *_all("1.5", "99999999999999999999", "1e3", "1e-3", "9" * 400),
    *_all("0", "0x10", "1_000", "+5", "007", " 7", may_pass=True),
)
NUMBERS = (
    *_NO_NUMBERS,
    *_all("0", "1_0", "5e-324", "99999999999999999999", "+5", " 7", may_pass=True),
)
CHOICES = _all("", "x", "CSV ", "c" * 5000, "csv,json", "\x1b[2J", "none\n", "0")
FLAGS = _all("=1", "=", "=" + "y" * 3000)
NAMES = (
    *_all("", " ", "../good", "/etc", "a/b", ".", "..", "n" * 300, "n" * 5000, "a\nb", "\x1b[2J"),
    *_all(
        "good/", "./good", "~", "%s", "[red]good[/red]", "g\u00f6od", "\udcff", "-x", "nul\u2028"
    ),
    *_all("missing", "g00d", "GOOD", may_pass=True),
)
ARCHITECTURES = _all(
    *("", "original@0", "original@" + LONG, "original@\u0663\u0662", "original@1e3", "original@-1"),
    *("original@99999999999999999999", "original@3", "original@", "origina", "ORIGINAL", "@64"),
    *("original@64x3", "original@64x", "original@64x64x64"),
    *("good#", "good#99", "good#" + LONG, "good#-1", "good#x", "#", "#0", "missing#0", "../good#0"),
    *("good#0#0", "n" * 300 + ".json", "n" * 5000 + ".yaml", "missing.json", "foreign.json", "."),
    *("a/" * 2500 + "x.json", "/dev/zero.json", "\x1b[2J", "\udcff.json", "tiny.json/x.json"),
)
MODELS = _all(
    *("", "good#", "good#99", "good#x", "#", "missing#0", "good#0#0", "good", "missing", "."),
    *(
        "../good#0",
        "n" * 300,
        "n" * 5000,
        "tiny.json",
        "/dev/zero",
        "\x1b[2J",
        "\udcff",
        "a#" + LONG,
    ),
)
SHARES = _all(
    *("", "0", "1", "1.5", "-0.5", "nan", "inf", "1e999", "1e", "1e-", "0.5.5", "+-1", LONG, "0,5"),
    *("\u0660.\u0665", "half", "original", "original@16", "missing.json", "foreign.json", "."),
    *("good#99", "good#original", "0.5\n", "\x1b[2J", "fifo.json"),
)
TEACHERS = _all(
    *("", ",", "x", "#", "77", "-1", "good#99", "good#", "missing#0", "../good#0", "origina", LONG),
    *("original,", "original,,modified", "original,original", "\x1b[2J", "\u0662", "indb#0"),
)
BACKENDS = _all("", ",", " , ", "eagre", "eager,", "x,y", ",".join(["eager"] * 3000), "\x1b[2J")
SAMPLERS = _all(
    "", ",", " , ", "rndom", "random,", ",random", "x" * 3000, "random,random", "\x1b[2J"
)
OBJECTIVES = _all(
    *("", ",", "params", "params,params", "x,y", "params,x", "p" * 5000, "params;macs"),
    *("params,absent_module:x", "params,nas.losses:psnr", "params,nas.losses:absent", "params,a:"),
)
PARTS = _all(
    *("", "mse", ":", "x:", ":x", "../x:y", "/dev/zero:x", "absent_module:x", "nas.absent:x"),
    *("nas.losses:absent", "nas.losses:psnr", "a" * 5000, "a:" + "b" * 5000, "\x1b[2J:x", "a:b:c"),
)
"""Import strings of no part, or of one that takes other arguments."""
BATCHES = _all(
    "", ",", "0", "-1", "1,", "1,,8", LONG, "\u00b2", "\u0663", "1.5", "x", "99999999999"
)
SWEEPS = _all(
    *("", "=", "batch", "batch=", "=1", "batch=0", "batch=-1", "batch=1,,2", "batch=" + LONG),
    *(
        "batch=\u0663",
        "btch=1",
        "width=99999999999",
        "batch=1.5",
        "batch=nan",
        "size=0",
        "\x1b[2J=1",
    ),
    *("batch=99999999999999", "threads=0", "threads=99999"),
)
PIXELS = _all(
    *("", "x", "16x", "x16", "16x16x3", "16X24", "7", "16x7", "4000", "-16", "1e2", LONG),
    *("16x4000", "16 x 24", "\u0663\u0662", "16,24", "\x1b[2J", "16x" + LONG, "1.5"),
)
DEVICES = _all(
    "", "gpu", "cuda:99", "cpu:x", "tpu", "c" * 5000, "\x1b[2J", "cuda:-1", "meta", "xla"
)
TIMES = _all(
    *("", "x", "0", "-5", "nan", "inf", "1e400h", "1.2.3h", "5 years", "h", LONG, LONG + "h"),
    *("\u0663h", "2026-01-01", "30m30", "90s\n"),
)
SIZES = _all("", "x", "0", "-4GB", "nan", "inf", "1e400GB", "4XB", LONG, "GB", "1KB", "\u0664GB")
RUNNERS = _all("", "Ray", "local,ray", "x" * 5000, "\x1b[2J")
STORAGES = _all(
    *(
        "",
        "journal:",
        "journal:.",
        "journal:/",
        "journal:/dev/full",
        "journal:fifo",
        "journal:home",
    ),
    *(
        "journal:missing/x.log",
        "journal:indb.db",
        "journal:foreign.json",
        "sqlite://",
        "sqlite:///",
    ),
    *("sqlite:///.", "sqlite:///foreign.json", "sqlite:///missing/x.db", "postgresql://", "x://y"),
    *(
        "postgresql://u:p w@127.0.0.1:1/d",
        "postgresql://127.0.0.1:99999/d",
        "grpc://",
        "grpc://x:y",
    ),
    *("postgresql://[::1/d", "http://127.0.0.1:1", "journal:" + "n" * 300, "journal:" + "n" * 5000),
    *(
        "good",
        "journal:\x1b[2J/x",
        "redis://127.0.0.1:1",
        "mysql://127.0.0.1:1/d",
        "://",
        "journal",
    ),
    *("postgresql://127.0.0.1:1/d?connect_timeout=1", "grpc://127.0.0.1:1"),
)
STORES = (
    *_all("", "://", "file://", "file:///dev/null", "http://127.0.0.1:1", "x" * 5000),
    *_all("x", "s3:", may_pass=True),  # folders
)
ADDRESSES = _all("", "ray://127.0.0.1:1", "x" * 5000, "::::", "127.0.0.1:99999", "\x1b[2J")
KINDS = _all("", "face", "FACES", "faces,celeba", "x" * 5000, "\x1b[2J", "celeba", "folder", "0")
SPACES = _all(
    *(
        "",
        "wid",
        "wide@",
        "wide@0",
        "wide@" + LONG,
        "wide@\u0663\u0662",
        "wide@-1",
        "wide@1e3",
        "@64",
        "wide@144x",
        "wide@144x8",
        "wide@144x96x3",
    ),
    *("wide@99999999999999999999", "missing.yaml", "n" * 300 + ".yaml", "n" * 5000 + ".yaml", "."),
    *("foreign.json", "/dev/null", "tiny.yaml", "\x1b[2J.yaml", "\udcff.yaml", "tiny.json@64"),
)
CONFIGS = _all(
    *("", "quick", "missing.yaml", "n" * 300 + ".yaml", "n" * 5000 + ".yaml", ".", "/dev/null"),
    *(
        "tiny-space.yaml",
        "foreign.json",
        "\x1b[2J",
        "\udcff.yaml",
        "tiny.yaml/x",
        "~/x.yaml",
        "fifo",
    ),
    *("/dev/full", "indb.db", "nas-studies", "http://127.0.0.1:1/x.yaml"),
)
HOSTS = _all("", "x y", "h" * 5000, "999.999.999.999", "\x1b[2J")
SSH_HOSTS = (
    *_all("", "x y", "h" * 5000, "\x1b[2J", "-oProxyCommand=id", "a@-b", "a;b", "$(id)", "h:22"),
    *_all("a@b@c", "@h", "h@", "ssh://h", "a/b", "\u0661"),
)
INTERPRETERS = _all("", "x y", "-c", "p;q", "$(id)", "p'q", "p" * 5000, "\x1b[2J", "\udcff")
SSH_OPTIONS = _all("", "x", "=", "A=", "=b", "-oA=b", "A B=c", "A=" + "b" * 5000, "A=b\nC=d")
TARGETS = _all(
    *("", " ", "../x", "/etc", "a b", "a\nb", "-x", ".x", "t" * 300, "t" * 5000, "\x1b[2J"),
    *("\udcff", "\u0661", "missing" * 7),
)
LAYERS = _all(
    *("", " ", "conv", "cnv in=4", "conv in=0 out=4 size=8", "conv in=x out=4 size=8", "tiny.json"),
    *("conv in=4 out=4 size=99999999", "conv in=-1 out=4 size=8", f"conv in={LONG} out=4 size=8"),
    *(
        "conv in=\u0664 out=4 size=8",
        "conv in=4 in=4",
        "tiny.json encoder.x",
        "tiny.json ",
        "= =",
        "#",
    ),
    *(
        "conv in=1e400 out=4 size=8",
        "conv in=4 out=4 size=nan",
        "\x1b[2J x",
        "tiny.json " + "a." * 2500,
    ),
)
IN_PATHS = _all(
    *(
        "",
        "missing",
        "n" * 300,
        "a/" * 2500,
        "/dev/null",
        "/dev/zero",
        "fifo",
        "tiny.json",
        "\udcff",
    ),
    *(
        "~nobody/x",
        "\x1b[2J",
        "a\nb",
        "/proc/self/mem",
        "tiny.json/x",
        "indb.db",
        "dangling",
        "loop",
    ),
)
# No FIFO: that a writer waits for its reader is what it is for.
OUT_PATHS = (
    *_all("n" * 300, "n" * 5000, "/dev/full", "tiny.json/x", "/proc/x", "loop", "/dev/full/x"),
    *_all("", ".", "/dev/null", "\udcff", "\x1b[2J", "a\nb", "dangling", may_pass=True),
    *_all("nas-studies", "home", "/", "~nobody", "[red]x[/red]", may_pass=True),
)
_KEYS = _all(
    *("", "=", "=1", "x", "x=1", "a.b.c.d=1", "x" * 5000 + "=1", "x=" + "y" * 5000, "training=5"),
    *("training=[1, 2]", "training.x=1", "training..epochs=1", ".=1", "training.=1", "name=../x"),
    *("name=", "name=5", "\x1b[2J=1", "search=[]", "limits=5", "limits.params=", "data=null"),
    *(
        "data={kind: faces, count: .inf}",
        "training.epochs=&a [*a]",
        "training.epochs=" + "[" * 3000,
    ),
    *("training.epochs=!!python/object/apply:os.system [ls]", "training.epochs=*x", "training={"),
    *("ray={address: 5}", "space=[]", "objectives=x", "objectives=[]", "objectives=[[]]"),
    *("latency.threads=1e400", "training.batch_size=1", "training.epochs=\ufeff\ufeff1"),
)
_NUMERIC_KEYS = (
    *("training.epochs", "training.learning_rate", "training.batch_size", "training.seed"),
    *("training.kl_weight", "data.count", "data.split_seed", "latency.max_s", "latency.batch"),
    *("latency.seed", "latency.half_width", "search.trials", "search.seed", "workers", "threads"),
    *("limits.params", "trial_timeout_s", "trial_memory_bytes", "ray.cpus_per_trial"),
    *("search.early_stopping.eta", "search.early_stopping.rungs", "ray.memory_gb_per_trial"),
)
YAML_NUMBERS = (
    *("nan", ".nan", ".inf", "-.inf", "1e400", "0x_", LONG, "{}", "2026-01-01"),
    *("1:30", "2026-01-01T00:00:00", "!!binary aGk=", "!!set {1}", "!!timestamp 2026-01-01", "-1"),
    *(
        "'\u0663'",
        "true",
        "[]",
        "{}",
        "[1]",
        "{a: 1}",
        "!!float 1e400",
        "0o_",
        "-" + LONG,
        "1_0:30",
    ),
    *(
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!int ''",
        "!!null x",
        "!!omap [1]",
        "!x 1",
        "5 GB",
        "''",
    ),
)
SETTINGS = (
    *_KEYS,
    *_all(*(f"{key}={value}" for key in _NUMERIC_KEYS for value in YAML_NUMBERS[:9])),
    *(Bad(f"{key}={value}", may_pass=True) for key in _NUMERIC_KEYS for value in YAML_NUMBERS[9:]),
)
LIMITS = _all(
    *("", "=", "params", "params=", "params=nan", "params=inf", "params=.inf", "params=1e400"),
    *("params=0", "params=-1", "prams=5", "reconstruction_loss=1", f"params={LONG}", "params=0x_"),
    *(
        "params=2026-01-01",
        "params=1:30",
        "params=true",
        "params=[1]",
        "params='\u0663'",
        "params=x",
    ),
    *("params=!!float .inf", "params=&a [*a]", "=5", "params=99999999999999999999" + "9" * 400),
)
ATTRIBUTES = (*_all("", "Smile", "x" * 5000, "\x1b[2J"),)
