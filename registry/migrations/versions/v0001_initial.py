"""Versions, aliases, and the history of aliases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "versions",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("locale", sa.String(255), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("task_type", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("base", sa.String(255), nullable=False),
        sa.Column("base_fingerprint", sa.String(64), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("data_digest", sa.String(), nullable=True),
        sa.Column("parent", sa.String(), nullable=True),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=True),
        sa.Column("published_at", sa.String(32), nullable=False),
        sa.Column("published_by", sa.String(255), nullable=False),
    )
    op.create_index("ix_versions_locale_task", "versions", ["locale", "task"])
    op.create_index("ix_versions_task", "versions", ["task"])

    op.create_table(
        "aliases",
        sa.Column("locale", sa.String(255), primary_key=True),
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column(
            "digest",
            sa.String(64),
            sa.ForeignKey("versions.digest", name="fk_aliases_digest"),
            nullable=False,
        ),
        sa.Column("updated_at", sa.String(32), nullable=False),
    )
    op.create_index("ix_aliases_task", "aliases", ["task"])

    op.create_table(
        "alias_history",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("locale", sa.String(255), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("previous", sa.String(64), nullable=True),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.Column("changed_by", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
    )
    op.create_index("ix_alias_history_locale_task", "alias_history", ["locale", "task"])
    op.create_index("ix_alias_history_task", "alias_history", ["task"])
