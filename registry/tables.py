"""The catalogue's tables; `migrations/` makes them."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()

VERSIONS = sa.Table(
    "versions",
    METADATA,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("locale", sa.String(255), nullable=False),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("task_type", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("rank", sa.Integer),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("base", sa.String(255), nullable=False),
    sa.Column("base_fingerprint", sa.String(64)),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("data_digest", sa.String),
    # No foreign key: the parent may be in another registry.
    sa.Column("parent", sa.String),
    sa.Column("manifest", sa.JSON, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.String),
    sa.Column("published_at", sa.String(32), nullable=False),
    sa.Column("published_by", sa.String(255), nullable=False),
    sa.Column("author", sa.String(255)),
    sa.Column("tools", sa.JSON),
    sa.Column("parts", sa.JSON),
    # By time too: else the planner may walk all versions of a task to have them in order.
    sa.Index("ix_versions_locale_task_published_at", "locale", "task", "published_at"),
    sa.Index("ix_versions_task_published_at", "task", "published_at"),
    sa.Index("ix_versions_kind", "kind"),
    sa.Index("ix_versions_published_at", "published_at"),
)

ALIASES = sa.Table(
    "aliases",
    METADATA,
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
    # The primary key is the index by locale and task.
    sa.Index("ix_aliases_task", "task"),
    sa.Index("ix_aliases_digest", "digest"),
)

ALIAS_HISTORY = sa.Table(
    "alias_history",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("locale", sa.String(255), nullable=False),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("alias", sa.String(64), nullable=False),
    # No foreign keys: what was live at a time stays known when the version is gone.
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("previous", sa.String(64)),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("changed_at", sa.String(32), nullable=False),
    sa.Column("changed_by", sa.String(255), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Index("ix_alias_history_locale_task", "locale", "task"),
    sa.Index("ix_alias_history_task", "task"),
    sa.Index("ix_alias_history_changed_at", "changed_at"),
)

# Versions that were taken out; the rest of what was known of them went with them.
REMOVALS = sa.Table(
    "removals",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("locale", sa.String(255), nullable=False),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("removed_at", sa.String(32), nullable=False),
    sa.Column("removed_by", sa.String(255), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Index("ix_removals_digest", "digest"),
)

# One row. A process that keeps what it has read looks here whether that is still true.
GENERATION = sa.Table(
    "generation",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

LOCALE_ALIASES = sa.Table(
    "locale_aliases",
    METADATA,
    sa.Column("locale", sa.String(255), primary_key=True),
    sa.Column("instead", sa.String(255), nullable=False),
    sa.Column("changed_at", sa.String(32), nullable=False),
    sa.Column("changed_by", sa.String(255), nullable=False),
)

PROTECTIONS = sa.Table(
    "protections",
    METADATA,
    sa.Column("alias", sa.String(64), primary_key=True),
    sa.Column("changed_at", sa.String(32), nullable=False),
    sa.Column("changed_by", sa.String(255), nullable=False),
)

GATES = sa.Table(
    "gates",
    METADATA,
    sa.Column("pattern", sa.String(64), primary_key=True),
    sa.Column("alias", sa.String(64), primary_key=True),
    sa.Column("requires", sa.JSON, nullable=False),
    sa.Column("changed_at", sa.String(32), nullable=False),
    sa.Column("changed_by", sa.String(255), nullable=False),
)

KEYS = sa.Table(
    "keys",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("public", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("trusted_at", sa.String(32), nullable=False),
    sa.Column("trusted_by", sa.String(255), nullable=False),
    sa.Column("revoked_at", sa.String(32)),
    sa.Column("revoked_by", sa.String(255)),
    sa.Column("reason", sa.Text),
)

SIGNATURES = sa.Table(
    "signatures",
    METADATA,
    sa.Column(
        "digest",
        sa.String(64),
        sa.ForeignKey("versions.digest", name="fk_signatures_digest"),
        primary_key=True,
    ),
    # No foreign key: whether a key is trusted may be settled after it has signed.
    sa.Column("key_id", sa.String(64), primary_key=True),
    sa.Column("signature", sa.String(128), nullable=False),
    sa.Column("signed_at", sa.String(32), nullable=False),
)

# What a registry demands of its versions: a row each; what is absent is not demanded.
DEMANDS = sa.Table(
    "demands",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("changed_at", sa.String(32), nullable=False),
    sa.Column("changed_by", sa.String(255), nullable=False),
)
