"""A real PostgreSQL of one test run: Debian's programs, a cluster of its own in a temporary folder, loopback only."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from lakehouse_pipeline.demo.seaweed import HOST, free_ports

USER = "lakehouse"
SERVERS_USER = "postgres"  # Debian's; the server refuses to run as root
PLACES = "/usr/lib/postgresql"  # Debian keeps versions side by side here, outside of PATH


class PostgresServer:
    """One cluster, made and started by its `with` block, and removed at its end."""

    def __init__(self) -> None:
        """Find the programs.

        Raises:
            FileNotFoundError: there are none; says what installs them.
        """
        self._programs = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="lakehouse-postgres-"))
        self._port = free_ports(1)[0]
        self.password = secrets.token_hex(8)

    @property
    def uri(self) -> str:
        """Give SQLAlchemy's URL of the database that every cluster has."""
        return self._uri("postgres")

    def database(self) -> str:
        """Make an empty database; gives SQLAlchemy's URL of it."""
        name = f"test_{uuid.uuid4().hex}"
        engine = sa.create_engine(self.uri, isolation_level="AUTOCOMMIT")  # CREATE DATABASE takes no transaction
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self._uri(name)

    def __enter__(self) -> Self:
        """Make the cluster and start it; both programs come back when they are done."""
        as_server = {"user": SERVERS_USER, "group": SERVERS_USER, "extra_groups": []} if os.geteuid() == 0 else {}
        self._as_server: dict[str, Any] = as_server
        try:
            password = self._folder / "password"
            password.write_text(self.password)
            if as_server:
                owner = pwd.getpwnam(SERVERS_USER)
                for path in (self._folder, password):
                    os.chown(path, owner.pw_uid, owner.pw_gid)
            by_password = ("-A", "scram-sha-256", f"--pwfile={password}")
            self._run("initdb", "-D", "data", "-U", USER, "-E", "UTF8", "--no-sync", *by_password)
            self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", self._options(), "start")
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it at once; its data is of no use to anybody."""
        try:
            self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")
        finally:
            shutil.rmtree(self._folder)

    def _uri(self, database: str) -> str:
        return f"postgresql+psycopg2://{USER}:{self.password}@{HOST}:{self._port}/{database}"

    def _options(self) -> str:
        return f"-p {self._port} -k {self._folder} -c listen_addresses={HOST} -c fsync=off"

    def _run(self, program: str, *arguments: str) -> None:
        # The server inherits the output: a pipe would be waited for until it stops.
        with (self._folder / f"{program}.out").open("ab") as output:
            done = subprocess.run(
                [self._programs / program, *arguments],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                **self._as_server,
            )
        if done.returncode:
            raise RuntimeError(f"{program}: {(self._folder / f'{program}.out').read_text()}")


def _programs() -> Path:
    """Give the folder of the newest version."""
    found = [path.parent for path in Path(PLACES).glob("*/bin/pg_ctl")]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    on_path = shutil.which("pg_ctl")
    if on_path is None:
        raise FileNotFoundError("PostgreSQL is missing: apt-get install postgresql (as root, `make test` does it)")
    return Path(on_path).resolve().parent
