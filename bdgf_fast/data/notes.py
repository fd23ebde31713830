"""Notes: sentences on what was settled while a scene was opened or split."""


class Doubt(str):
    """A note on something that was taken on trust or will mislead: a person should look at it, and `data check` points it out."""

    __slots__ = ()
