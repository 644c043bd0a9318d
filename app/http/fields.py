"""Types of text in request bodies. Each has a length: a field without one may be as long as the whole body."""

from typing import Annotated

from pydantic import Field

from app.video import MAX_NAME_CHARACTERS

Word = Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)]
"""A name, an id, a size or another short text, which may be empty."""
Name = Annotated[Word, Field(min_length=1)]
"""A name or an id that must not be empty."""
Address = Annotated[str, Field(max_length=8_192)]
"""A URL. Those of webhooks have a lower limit of their own, with a message of its own."""
Secret = Annotated[str, Field(max_length=8_192)]
"""A signing secret, with a lower limit in `webhooks/endpoints.py`."""
