"""Text for repr."""


def indent(text: str) -> str:
    """All lines but the first moved in by two."""
    return text.replace("\n", "\n  ")
