"""A private PostgreSQL server, started from the installed PostgreSQL programs."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from search_spaces.errors import UserError

MISSING = "no PostgreSQL programs (initdb, pg_ctl): install Debian's `postgresql`"


class Server:
    """A server with data, socket and log in one folder, at a free port of 127.0.0.1.

    Args:
        programs: Folder of `initdb` and `pg_ctl`.
        folder: An empty folder that an unprivileged user can reach: PostgreSQL refuses root.
        fsync: Whether to synchronise writes to disk, as PostgreSQL does by default; tests do not.
    """

    user = "nas"

    def __init__(self, programs: Path, folder: Path, fsync: bool = False) -> None:
        self._programs, self._folder = programs, folder
        self._fsync = "on" if fsync else "off"
        self.password, self.port = secrets.token_hex(8), free_port()
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def create(self) -> None:
        """Create the data folder; connections need the password."""
        secret = self._folder / "password"
        secret.write_text(self.password)
        asked = ["--auth=scram-sha-256", f"--pwfile={secret}", f"--username={self.user}"]
        self._call("initdb", *asked, "--encoding=UTF8", "--locale=C", "--no-sync")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1"
        options += f" -c fsync={self._fsync}"
        self._call("pg_ctl", "start", "-w", "-l", str(self._folder / "log"), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` ends every connection, `immediate` is a crash."""
        self._call("pg_ctl", "stop", "-w", "-m", mode)

    def address(self, database: str = "postgres", password: str | None = None) -> str:
        """Return the address of a database, with the password."""
        login = f"{self.user}:{password or self.password}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """Create an empty database and return its address."""
        name = f"t{uuid.uuid4().hex}"
        address = self.address().replace("postgresql://", "postgresql+psycopg://")
        engine = create_engine(address, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.address(name)

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self._folder / "data"), *arguments]
        with (self._folder.parent / f"{self._folder.name}.out").open("a+") as out:
            done = subprocess.run(
                command, cwd="/", stdout=out, stderr=out, check=False, umask=0o022, **self._as
            )
            if done.returncode:
                out.seek(0)
                raise RuntimeError(f"{program} failed: {out.read()[-2000:]}")


@contextmanager
def private_server(fsync: bool = False) -> Iterator[Server]:
    """Yield a new server; stop it and remove its data afterwards.

    Raises:
        UserError: PostgreSQL is not installed.
    """
    found = programs()
    if found is None:
        raise UserError(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="nas-postgres-", dir="/tmp"))
    server = Server(found, folder, fsync)
    try:
        server.create()
        server.start()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f"{folder.name}.out").unlink(missing_ok=True)


@contextmanager
def private_postgres() -> Iterator[str]:
    """Yield the address of an empty database that synchronises its writes to disk.

    The password is in the environment of commands that are started meanwhile.

    Raises:
        UserError: PostgreSQL is not installed.
    """
    before = os.environ.get("PGPASSWORD")
    try:
        with private_server(fsync=True) as server:
            os.environ["PGPASSWORD"] = server.password
            yield server.database()
    finally:
        os.environ.pop("PGPASSWORD", None)
        if before is not None:
            os.environ["PGPASSWORD"] = before


def programs() -> Path | None:
    """Return the folder of the newest `initdb` and `pg_ctl`, or None if there is none."""
    known = [Path(found).resolve().parent for found in [shutil.which("pg_ctl")] if found]
    known += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((path for path in known if (path / "initdb").exists()), None)


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
