"""What a number in a record may be; checked where a record is read from a file.

JSON has no NaN and no infinity, so every number of a record is finite.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
"""A fraction, from 0 to 1."""

Amount: TypeAlias = Annotated[float, Meta(ge=0)]
"""A number that is not negative."""

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]
"""How many."""

Order: TypeAlias = Annotated[int, Meta(ge=1, le=2**31)]
"""A place counted from 1, such as a time step."""
