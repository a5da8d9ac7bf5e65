"""Units of measurement that word problems use: to which family each belongs, and how many of the smallest it is."""

from collections.abc import Mapping

FAMILIES: Mapping[str, Mapping[str, int]] = {
    "time": {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86400, "week": 604800},
    "money": {"cent": 1, "dollar": 100},
    "length": {"inch": 1, "inche": 1, "foot": 12, "feet": 12, "ft": 12, "yard": 36, "mile": 63360},
    "metric length": {"mm": 1, "millimeter": 1, "millimetre": 1, "cm": 10, "centimeter": 10, "centimetre": 10,
                      "meter": 1000, "metre": 1000, "km": 1000000, "kilometer": 1000000, "kilometre": 1000000},
    "weight": {"ounce": 1, "oz": 1, "pound": 16, "lb": 16},
    "metric weight": {"g": 1, "gram": 1, "kg": 1000, "kilogram": 1000},
    "volume": {"cup": 1, "pint": 2, "quart": 4, "gallon": 16},
    "metric volume": {"ml": 1, "milliliter": 1, "millilitre": 1, "liter": 1000, "litre": 1000},
}  # fmt: skip
# In the singular; a plural has an s more.
SCALES: Mapping[str, int] = {unit: scale for units in FAMILIES.values() for unit, scale in units.items()}
FAMILY: Mapping[str, str] = {unit: family for family, units in FAMILIES.items() for unit in units}
# For a pattern: longer names first, so that "mm" is not taken for "m".
ANY_UNIT = "|".join(sorted(SCALES, key=lambda unit: (-len(unit), unit)))
