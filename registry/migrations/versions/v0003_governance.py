"""Protected aliases, gates, keys and signatures; more about versions, and those that went."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("versions", sa.Column("author", sa.String(255), nullable=True))
    op.add_column("versions", sa.Column("tools", sa.JSON(), nullable=True))
    op.add_column("versions", sa.Column("parts", sa.JSON(), nullable=True))
    op.create_index("ix_versions_kind", "versions", ["kind"])
    op.create_index("ix_versions_published_at", "versions", ["published_at"])
    # These serve what the old ones did, and give pages in order.
    op.create_index(
        "ix_versions_locale_task_published_at", "versions", ["locale", "task", "published_at"]
    )
    op.create_index("ix_versions_task_published_at", "versions", ["task", "published_at"])
    op.drop_index("ix_versions_locale_task", "versions")
    op.drop_index("ix_versions_task", "versions")
    op.create_index("ix_aliases_digest", "aliases", ["digest"])
    op.create_index("ix_alias_history_changed_at", "alias_history", ["changed_at"])

    op.create_table(
        "removals",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("locale", sa.String(255), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("removed_at", sa.String(32), nullable=False),
        sa.Column("removed_by", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
    )
    op.create_index("ix_removals_digest", "removals", ["digest"])

    op.create_table(
        "protections",
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.Column("changed_by", sa.String(255), nullable=False),
    )
    op.create_table(
        "gates",
        sa.Column("pattern", sa.String(64), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("requires", sa.JSON(), nullable=False),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.Column("changed_by", sa.String(255), nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("public", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("trusted_at", sa.String(32), nullable=False),
        sa.Column("trusted_by", sa.String(255), nullable=False),
        sa.Column("revoked_at", sa.String(32), nullable=True),
        sa.Column("revoked_by", sa.String(255), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
    )
    op.create_table(
        "signatures",
        sa.Column(
            "digest",
            sa.String(64),
            sa.ForeignKey("versions.digest", name="fk_signatures_digest"),
            primary_key=True,
        ),
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("signature", sa.String(128), nullable=False),
        sa.Column("signed_at", sa.String(32), nullable=False),
    )
    op.create_table(
        "demands",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.Column("changed_by", sa.String(255), nullable=False),
    )
