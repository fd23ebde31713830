"""Colours of classes: meaningful where the name tells, otherwise an order that stays apart for colour-blind readers."""

from __future__ import annotations

from collections.abc import Sequence

# Okabe and Ito's eight (2008) first, then Tol's "muted" (2021) where they stay apart from those.
_SERIES = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#f0e442", "#cc79a7", "#56b4e9", "#332288",
    "#999933", "#882255", "#44aa99", "#ddcc77", "#aa4499", "#117733", "#cc6677", "#888888",
)  # fmt: skip

# What a reader of maps expects; the first word found in the class name decides.
_BY_WORD = (
    (("water", "river", "lake", "sea", "pond", "ocean"), "#3b7dd8"),
    (("wetland", "flooded", "marsh", "mangrove", "reed"), "#5bb5b0"),
    (("tree", "forest", "wood", "orchard"), "#1b6e3a"),
    (("crop", "agric", "farm", "field", "vineyard", "maize", "corn"), "#f2c14e"),
    (("grass", "meadow", "pasture", "lawn"), "#9bd06c"),
    (("range", "shrub", "scrub", "bush"), "#c9b27c"),
    (("built", "urban", "resid", "building", "roof", "town", "city", "house"), "#c8453b"),
    (("industr", "commerc"), "#8c4a9e"),
    (("road", "asphalt", "parking", "highway", "railway", "pavement"), "#6e6e73"),
    (("snow", "ice"), "#dcecf5"),
    (("soil", "bare", "sand", "beach", "rock", "fallow"), "#b08a62"),
)


def parse_colour(value: object) -> tuple[int, int, int]:
    """(r, g, b) of "#rrggbb" or of three whole numbers 0-255; ValueError otherwise."""
    if isinstance(value, str):
        text = value.removeprefix("#")
        if len(text) == 6 and all(c in "0123456789abcdefABCDEF" for c in text):
            return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)
    elif isinstance(value, Sequence) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return value[0], value[1], value[2]
    raise ValueError(f'{value!r} is not a colour; write "#rrggbb" or [r, g, b] with 0 to 255')


def class_colours(names: Sequence[str]) -> list[tuple[int, int, int]]:
    """One colour per class name, all different.

    Names that say what the class is get the customary colour; a second class of the same kind, and names that say
    nothing, take the next colour of the series. Past the series colours are spread over hue and lightness.
    """
    chosen: list[str | None] = []
    for name in names:
        wanted = next((c for words, c in _BY_WORD if any(word in name.lower() for word in words)), None)
        chosen.append(wanted if wanted not in chosen else None)
    taken = {colour for colour in chosen if colour}
    rest = iter([c for c in _SERIES if _far(c, taken)] + _spread(len(names)))
    return [parse_colour(colour or next(rest)) for colour in chosen]


def _far(colour: str, taken: set[str]) -> bool:
    mine = parse_colour(colour)
    return all(sum(abs(a - b) for a, b in zip(mine, parse_colour(t), strict=True)) > 60 for t in taken)


def _spread(count: int) -> list[str]:
    import colorsys

    shades = []
    for i in range(count):
        r, g, b = colorsys.hls_to_rgb(i * 0.618034 % 1, (0.35, 0.55, 0.75)[i % 3], 0.55)
        shades.append(f"#{round(r * 255):02x}{round(g * 255):02x}{round(b * 255):02x}")
    return shades
