"""``serve``: the daemon in the foreground."""

from __future__ import annotations

import click

from qwharf import settings


@click.command()
@click.option("--host", help="Address to bind; anything but loopback needs QWHARF_API_KEY.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port; default 8383 or QWHARF_PORT.")
def serve(host: str | None, port: int | None) -> None:
    """Run the daemon in the foreground: gateway, supervisor and state.

    `qwharf up` starts one in the background when none runs; use this under systemd or in a
    container. Stops gracefully on SIGTERM and Ctrl-C; a restart recovers what was running.
    """
    import os

    from qwharf.daemon import server

    environ = dict(os.environ)
    if host:
        environ["QWHARF_HOST"] = host
    if port:
        environ["QWHARF_PORT"] = str(port)
    server.run(settings.load(environ))
