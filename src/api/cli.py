"""The command line: serve, migrate, look after tenants, keys and the books."""

import asyncio
import signal
import sys

import typer
import uvicorn

from src.api import bootstrap, cli_admin
from src.api.cli_ledger import ledger_cli
from src.api.cli_quota import quota_cli
from src.shared.errors import GatewayError, Misconfigured
from src.shared.logging import configure_logging
from src.shared.settings import Settings, load_settings

cli = typer.Typer(no_args_is_help=True, add_completion=False, help="LLM Gateway", pretty_exceptions_enable=False)
cli_admin.add_commands(cli)
cli.add_typer(quota_cli, name="quota")
cli.add_typer(ledger_cli, name="ledger")


GRACE_S = 5.0
"""Beyond the drain timeout, for settling what was cut off."""


@cli.command()
def migrate() -> None:
    """Bring the database to the newest revision and load the catalog's files."""
    settings = load_settings()
    asyncio.run(bootstrap.migrate(settings))
    typer.echo("The database is at the newest revision.", err=True)


@cli.command()
def serve() -> None:
    """Serve HTTP until SIGTERM or SIGINT; running answers are finished first."""
    # The server raises the signal that ended it once more; whoever asked us to stop wants to hear that we did.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = load_settings()
    configure_logging(settings.log_level)
    made = asyncio.run(bootstrap.prepare(settings))
    _greet(settings, made)
    uvicorn.run(
        "src.api.main:app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.drain_timeout_s + GRACE_S),
        server_header=False,
        proxy_headers=False,
    )


def _greet(settings: Settings, made: bootstrap.Prepared) -> None:
    """What somebody who starts it for the first time needs: the address, a key, something to paste."""
    url = f"http://{'127.0.0.1' if settings.host in ('0.0.0.0', '::') else settings.host}:{settings.port}"  # noqa: S104
    key = made.new_key or made.how_to_read_key
    lines = [f"LLM Gateway {bootstrap.VERSION} on {url}  (docs: {url}/docs)"]
    if made.new_key:
        lines.append(f"Admin API key, shown once: {made.new_key}")
    if key and made.default_model:
        body = f'{{"model": "{made.default_model}", "messages": [{{"role": "user", "content": "Say hello."}}]}}'
        lines += [
            "Try it:",
            f"  curl {url}/v1/chat/completions \\",
            f'    -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\',
            f"    -d '{body}'",
        ]
    sys.stdout.write("\n".join(["", *lines, "", ""]))
    sys.stdout.flush()


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from src.api.json import dumps
    from src.api.main import create_app

    sys.stdout.write(dumps(create_app(load_settings()).openapi()).decode() + "\n")


def main() -> None:
    """The console script: sentences instead of stack traces for what an operator can mend."""
    try:
        cli()
    except Misconfigured as error:
        sys.stderr.write(f"llm-gateway: {error}\n")
        sys.exit(2)
    except GatewayError as error:
        sys.stderr.write(f"llm-gateway: {error.message}\n")
        sys.exit(1)
