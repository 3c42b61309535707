"""The image cache: damaged files are never used, and a full disk ends in one line."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nas.datasets import DataConfig, load_dataset, sources
from nas.datasets.array_file import ArrayFile, digest
from nas.datasets.cache import Entry
from nas.datasets.decoding import Picture, Shape, decoded_at
from profiling.errors import ProfilingError
from search_spaces.errors import UserError
from search_spaces.sizes import Size
from tests.helpers.command import nas

FACES = DataConfig(count=20)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def overwrite(path: Path, content: bytes) -> None:
    """Change a file, and set its time of modification back."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "zeros": lambda path: overwrite(path, bytes(path.stat().st_size)),
    "empty": lambda path: overwrite(path, b""),
    "truncated": lambda path: overwrite(path, path.read_bytes()[:-40]),
    "last byte": lambda path: overwrite(path, path.read_bytes()[:-1] + b"\x07"),
    "zip": lambda path: overwrite(path, b"PK\x03\x04" + path.read_bytes()[4:]),
    "nested header": lambda path: overwrite(path, path.read_bytes()[:10] + b"(" * 5000),
    "fifo": make_fifo,
    "dangling link": make_dangling_link,
}


@pytest.mark.parametrize("part", ["images.npy", "labels.npy", "seal.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again_with_one_line(
    cache: Path, capsys: pytest.CaptureFixture[str], part: str, damage: str
) -> None:
    intact = load_dataset(FACES, 16)
    pixels, fingerprint = intact.images.copy(), intact.fingerprint
    (path,) = cache.glob(f"*.{part}")
    DAMAGES[damage](path)
    read = load_dataset(FACES, 16)
    assert np.array_equal(read.images, pixels)
    assert read.fingerprint == fingerprint
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "damaged, or without checksum; made again" in said[0]
    load_dataset(FACES, 16)
    assert capsys.readouterr().err == ""


def test_an_entry_without_checksums_is_made_again(cache: Path) -> None:
    """Earlier versions wrote the pair of files alone."""
    load_dataset(FACES, 16)
    (seal,) = cache.glob("*.seal.json")
    seal.unlink()
    (images,) = cache.glob("*.images.npy")
    images.write_bytes(images.read_bytes()[:-3000] + bytes(3000))
    assert load_dataset(FACES, 16).images[-1].any()


def test_checksums_are_compared_once_for_each_state_of_the_files(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_dataset(FACES, 16)
    compared: list[tuple[int, ...]] = []

    def noted(array: NDArray[np.uint8]) -> str:
        compared.append(array.shape)
        return digest(array)

    monkeypatch.setattr("nas.datasets.cache.digest", noted)
    load_dataset(FACES, 16)
    assert compared == []
    (images,) = cache.glob("*.images.npy")
    os.utime(images)
    for _ in range(2):
        load_dataset(FACES, 16)
    assert [shape[0] for shape in compared] == [20, 20]  # labels and images, once


def numbered(start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rows = np.arange(start + 1, stop + 1, dtype=np.uint8)
    pixels = np.broadcast_to(rows[:, None, None, None], (len(rows), 3, 4, 4))
    return pixels, np.ones((len(rows), 1), np.bool_)


def test_rows_that_a_loss_of_power_emptied_are_made_again(cache: Path) -> None:
    entry, asked = Entry("entry", size=4, labels=1), list[int]()

    def interrupted(start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        if start == 20:
            raise KeyboardInterrupt
        return numbered(start, stop)

    def noted(start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        asked.append(start)
        return numbered(start, stop)

    with pytest.raises(KeyboardInterrupt):
        entry.load(30, interrupted, threads=1, chunk=10)
    (unfinished,) = cache.glob("*unfinished-images.npy")
    content = bytearray(unfinished.read_bytes())
    content[-30 * 48 : -20 * 48] = bytes(480)  # rows 0 to 9, of which only the marks were kept
    unfinished.write_bytes(content)
    images, _ = entry.load(30, noted, threads=1, chunk=10)
    assert asked == [0, 20]
    assert images[:, 0, 0, 0].tolist() == list(range(1, 31))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space is not reserved so")
def test_a_disk_that_is_too_small_is_refused_before_anything_is_rendered(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"30 images need 0\.0 MB, .*set NAS_CACHE_DIR to a larger"):
        Entry("entry", size=4, labels=1).load(30, numbered, threads=1, chunk=10)
    assert [path.name for path in cache.iterdir()] == ["entry.lock"]


def test_sets_that_do_not_fit_together_leave_no_unfinished_file(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = 20 * (3 * 16 * 16 + 11)
    usage = shutil.disk_usage(tmp_path)

    def room(_: Path) -> object:
        taken = sum(path.stat().st_size > 4000 for path in cache.iterdir())
        return usage._replace(free=one + 1000 - one * taken)

    monkeypatch.setattr(shutil, "disk_usage", room)
    folder, sizes = folder_of(tmp_path, 20), ("--size", "16", "--size", "17")
    assert nas(*FILL, str(folder), *sizes) == 2
    assert "20 images need 0.0 MB, but only 0.0 MB are free" in capsys.readouterr().err
    assert {path.suffix for path in cache.iterdir()} == {".lock"}


def test_a_file_that_may_not_be_as_long_is_refused_and_removed(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "posix_fallocate", limited)
    said = r"datasets: cannot be written \(File too large\); set NAS_CACHE_DIR to another folder"
    with pytest.raises(UserError, match=said):
        Entry("entry", size=4, labels=1).load(30, numbered, threads=1, chunk=10)
    assert [path.name for path in cache.iterdir()] == ["entry.lock"]


def test_space_is_reserved_where_the_file_system_cannot_do_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    file = ArrayFile(tmp_path / "x.npy", (300, 3, 50, 50), np.uint8)
    array = file.create()
    assert array.shape == file.shape
    assert not array.any()
    assert file.path.stat().st_blocks * 512 >= array.nbytes
    array[7] = 9
    read = np.load(file.path)  # an ordinary .npy file
    assert read.shape == file.shape
    assert (read[7] == 9).all()


def test_another_shape_or_type_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((4, 2), np.uint8))
    opened = ArrayFile(path, (4, 2), np.uint8).open()
    assert opened is not None
    assert opened.shape == (4, 2)
    assert ArrayFile(path, (2, 4), np.uint8).open() is None
    assert ArrayFile(path, (4, 2), np.bool_).open() is None


@pytest.mark.parametrize("make", [make_fifo, make_dangling_link])
def test_a_lock_that_is_no_file_is_refused_and_not_waited_for(
    cache: Path, make: Callable[[Path], None]
) -> None:
    entry = Entry("x", size=2, labels=1)
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "x.lock").touch()
    make(cache / "x.lock")
    with pytest.raises(ProfilingError, match=r"x\.lock: is not the file of a lock"):
        entry.load(4, numbered, threads=1, chunk=2)
    assert [path.name for path in cache.iterdir()] == ["x.lock"]


# Removing what nobody uses


def cleared(capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert nas("data", "cache", "clear") == 0
    return capsys.readouterr().out.splitlines()


def test_a_set_that_is_used_is_kept(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used, other = load_dataset(FACES, 16), load_dataset(FACES, 8)
    view, pixels = used.images[3:9, :, 2:], np.array(used.images[3:9, :, 2:])
    del used, other
    freed, kept = cleared(capsys)
    assert freed == "0.0 MB freed"
    assert kept.endswith("-seed0-16px: kept, because a process uses it")
    assert {path.name.partition("px")[0][-2:] for path in cache.glob("*.npy")} == {"16"}
    assert np.array_equal(view, pixels)
    del view
    assert len(cleared(capsys)) == 1
    assert list(cache.iterdir()) == []


@pytest.mark.slow
def test_a_set_that_another_process_fills_is_kept(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other process fills rows until its standard input ends."""
    program = (
        "import sys, numpy as np\n"
        "from nas.datasets.cache import Entry\n"
        "def fill(start, stop):\n"
        "    print('filling', flush=True)\n"
        "    sys.stdin.read()\n"
        "    n = stop - start\n"
        "    return np.full((n, 3, 8, 8), 7, np.uint8), np.zeros((n, 1), bool)\n"
        "images, _ = Entry('slow-8px', 8, 1).load(4, fill, threads=1, chunk=4)\n"
        "print(int(images.sum()))\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "filling\n"
        assert cleared(capsys)[1:] == ["slow-8px: kept, because a process uses it"]
        assert other.communicate()[0] == f"{7 * 4 * 3 * 8 * 8}\n"
    assert [path for path in cache.iterdir() if path.suffix == ".npy"]
    assert len(cleared(capsys)) == 1
    assert list(cache.iterdir()) == []


def test_what_killed_processes_left_is_removed(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir(parents=True)
    left = cache.parent / "archives" / ".unfinished-0123456789abcdef-x"
    left.mkdir(parents=True)
    (left / "1.png").write_bytes(b"x")
    (cache / "faces-16px-20.unfinished-images.npy").write_bytes(b"x")
    (cache / ".hashes.host.1.part").write_bytes(b"x")
    assert cleared(capsys) == ["0.0 MB freed"]
    assert [*cache.iterdir(), *left.parent.iterdir()] == []


# Files that another set has


def folder_of(tmp_path: Path, count: int) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"{number:02}.png"
        if not path.exists():
            Image.new("RGB", (9, 9), (number, 50, 60)).save(path)
    return folder


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are decoded, as they are decoded."""
    names = list[str]()

    def noted(path: Path, shapes: Sequence[Shape]) -> list[Picture]:
        if shapes:
            names.append(path.name)
        return decoded_at(path, shapes)

    monkeypatch.setattr("nas.datasets.sources.decoded_at", noted)
    return names


def test_only_new_and_changed_files_are_decoded(tmp_path: Path, decodings: list[str]) -> None:
    folder = folder_of(tmp_path, 20)
    first = load_dataset(DataConfig(kind="folder", path=folder), 8)
    assert len(decodings) == 20
    folder_of(tmp_path, 22)
    Image.new("RGB", (9, 9), (200, 50, 60)).save(folder / "07.png")
    (folder / "09.png").unlink()
    decodings.clear()
    second = load_dataset(DataConfig(kind="folder", path=folder), 8)
    assert sorted(decodings) == ["07.png", "20.png", "21.png"]
    levels = sorted(second.images[:, 0, 0, 0].tolist())
    assert levels == sorted({*range(22), 200} - {7, 9})
    assert first.fingerprint != second.fingerprint


def test_a_file_whose_permissions_were_repaired_is_read_again(
    tmp_path: Path, decodings: list[str]
) -> None:
    folder = folder_of(tmp_path, 20)
    (folder / "05.png").chmod(0o000)
    load_dataset(DataConfig(kind="folder", path=folder, max_unreadable=0.1), 8)
    decodings.clear()
    (folder / "05.png").chmod(0o644)
    assert load_dataset(DataConfig(kind="folder", path=folder), 8).skipped == ()
    assert decodings == ["05.png"]


def test_another_sample_of_the_same_files_decodes_none(
    tmp_path: Path, decodings: list[str]
) -> None:
    folder = folder_of(tmp_path, 40)
    load_dataset(DataConfig(kind="folder", path=folder), 8)
    decodings.clear()
    sample = load_dataset(DataConfig(kind="folder", path=folder, count=15, seed=3), 8)
    assert (len(sample), decodings) == (15, [])
    alone = DataConfig(kind="folder", path=folder, count=15, seed=3, fit="squash")
    assert load_dataset(alone, 8).fingerprint == sample.fingerprint
    assert len(decodings) == 15  # another shape is decoded


def refuse_to_write(*_: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


SIZES: tuple[Size, ...] = (8, 16, (12, 24))
FILL = ("data", "cache", "fill")


def test_one_decoding_fills_the_cache_at_several_sizes(
    tmp_path: Path,
    decodings: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = DataConfig(kind="folder", path=folder_of(tmp_path, 20), max_unreadable=0.1)
    assert config.path is not None
    (config.path / "03.png").write_bytes(b"\x89PNG and no more")
    load_dataset(config, 8)
    decodings.clear()
    sizes = [word for size in ("8", "16", "12x24", "16") for word in ("--size", size)]
    assert nas(*FILL, str(config.path), *sizes) == 0
    said = capsys.readouterr().out
    assert "19 images are cached at 8 px, 16 px and 12x24 px" in said
    assert "1 of 20 cannot be read: 03.png; all with reasons: " in said
    assert sorted({*decodings}) == [f"{number:02d}.png" for number in range(20)]
    assert len(decodings) == 22  # 03.png once more for the lists of two sizes
    decodings.clear()
    assert nas(*FILL, str(config.path), *sizes) == 0
    with pytest.MonkeyPatch.context() as read_only:
        read_only.setattr("nas.datasets.cache.open_lock", refuse_to_write)
        read_only.setattr("nas.datasets.reading.write_whole", refuse_to_write)
        cached = [load_dataset(config, size) for size in SIZES]
    assert decodings == []
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "another"))
    alone = [load_dataset(config, size) for size in SIZES]
    assert decodings.count("04.png") == 3
    assert [one.fingerprint for one in cached] == [one.fingerprint for one in alone]


@pytest.mark.slow
def test_filling_the_cache_goes_on_where_it_was_interrupted(
    tmp_path: Path, decodings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, 20)
    monkeypatch.setattr("nas.datasets.reading._CHUNK", 1)
    monkeypatch.setattr("nas.datasets.reading.logical_cpus", lambda: 1)
    noted: Callable[[Path, Sequence[Shape]], list[Picture]] = vars(sources)["decoded_at"]

    def interrupted(path: Path, shapes: Sequence[Shape]) -> list[Picture]:
        if len(decodings) == 7:
            time.sleep(0.5)  # until the rows before are written
            raise KeyboardInterrupt
        return noted(path, shapes)

    monkeypatch.setattr(sources, "decoded_at", interrupted)
    command = *FILL, str(folder), "--size", "8", "--size", "16"
    assert nas(*command) == 130
    assert len(decodings) == 7
    monkeypatch.setattr(sources, "decoded_at", noted)
    assert nas(*command) == 0
    assert len(decodings) == len(set(decodings)) == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [((), "Missing option '--size'"), (("--size", "7"), "8"), (("--size", "16"), "at least 10")],
)
def test_a_cache_that_cannot_be_filled_is_refused(
    tmp_path: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nas(*FILL, str(folder_of(tmp_path, 4)), *words) == 2
    assert said in capsys.readouterr().err


def test_a_damaged_list_of_files_is_not_used(
    tmp_path: Path, cache: Path, decodings: list[str]
) -> None:
    folder = folder_of(tmp_path, 20)
    load_dataset(DataConfig(kind="folder", path=folder), 8)
    (path,) = cache.glob("*.states.bin")
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    decodings.clear()
    load_dataset(DataConfig(kind="folder", path=folder, seed=1), 8)
    assert len(decodings) == 20
