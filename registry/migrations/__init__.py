"""Numbered changes of the catalogue's schema, run by alembic."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

REVISIONS = ("0001", "0002", "0003")
"""The schema's revisions in order; a catalogue at another one was written by a newer release."""

HEAD = REVISIONS[-1]

# alembic's `op` and `context` are one per process, whatever the database.
_one_at_a_time = threading.Lock()


def upgrade(connection: Connection) -> None:
    """Bring a database's schema up to `HEAD`, within the transaction that is open."""
    # Half a second to import, and seldom needed.
    from alembic import command
    from alembic.config import Config

    config = Config()
    # The value is subject to interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, "head")
