"""The master key that a connection holds for the archives of its backend."""

from __future__ import annotations

from storage_backends.fields import Fields
from wavelift.archive.keys import BadKey, parse_secret


def master_of(fields: Fields) -> bytes | None:
    """The key that archives' keys are made of, None for none. Raises InvalidRequest unless one of both is asked for."""
    given, plain = fields.text("master_secret"), fields.flag("plain")
    if plain and given:
        raise fields.wrong("plain", "true", "beside a master key")
    if plain:
        return None
    try:
        return parse_secret(fields.needed("master key (extra master_secret)", given), "The master key")
    except BadKey as error:
        # The value itself stays out of the message.
        raise fields.wrong("master_secret", "hidden", "not 64 hex digits") from error
