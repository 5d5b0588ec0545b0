"""Times as the catalogue writes them: UTC, ISO 8601, microseconds; they sort as text."""

from __future__ import annotations

from datetime import UTC, datetime

from ..core.errors import InputError


def utc_now() -> str:
    """The time now."""
    return written(datetime.now(UTC))


def written(time: datetime) -> str:
    """A time as the catalogue writes it; one without a zone is in UTC."""
    aware = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return aware.isoformat(timespec="microseconds")


def read_time(time: datetime | str) -> str:
    """A time in ISO 8601, such as `2026-11-20T12:00Z`, as the catalogue writes it.

    Raises:
        InputError: it is none.
    """
    if isinstance(time, datetime):
        return written(time)
    try:
        return written(datetime.fromisoformat(time))
    except (ValueError, OverflowError):
        raise InputError(
            f"{time!r} is no time; write it as ISO 8601 does, such as 2026-11-20T12:00Z"
        ) from None
