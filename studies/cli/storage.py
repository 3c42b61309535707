"""`nas storage`: serve a database to drivers that cannot connect to it directly."""

from __future__ import annotations

import click

from search_spaces.errors import UserError
from studies.cli.console import stderr
from studies.cli.main import HelpfulGroup
from studies.cli.options import Whole
from studies.storage.addresses import shared, shown

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@click.group(cls=HelpfulGroup)
def storage() -> None:
    """Serve a database of studies through Optuna's gRPC proxy."""


@storage.command()
@click.argument("address")
@click.option("--host", default="localhost", show_default=True, help="Host name to listen on.")
@click.option(
    "--port", type=Whole(1, 65535), default=13000, show_default=True, help="Port to listen on."
)
def serve(address: str, host: str, port: int) -> None:
    """Serve the database at ADDRESS until interrupted.

    Drivers then use --storage grpc://HOST:PORT and do not need the database's password. The proxy
    itself asks for no password: listen on the loopback address only, or on a network whose users
    may all change the studies.
    """
    from pathlib import Path

    from optuna.storages import run_grpc_proxy_server

    from nas.search.samplers import quiet_optuna
    from studies.storage.addresses import absolute
    from studies.storage.opening import open_storage

    found = absolute(address, Path())
    if not shared(found) or found.startswith("grpc:"):
        raise UserError(
            f"{shown(address)}: the proxy serves a database: give an address postgresql://..."
        )
    database = open_storage(found)
    if host not in LOOPBACK:
        warning = f"{host}: everybody who can reach it can read and change all studies"
        stderr.say(warning, style="yellow")
    stderr.say(f"serving {shown(address)} at grpc://{host}:{port}")
    try:
        with quiet_optuna():
            run_grpc_proxy_server(database, host=host, port=port)
    except RuntimeError as error:  # the port is in use
        raise UserError(f"--port {port}: {error}") from None
