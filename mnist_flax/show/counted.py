"""A number and what there are so many of, in words."""


def counted(number: int, noun: str) -> str:
    """Returns '1 evaluation', '2,000 evaluations', '3 batches'; `noun` is the word for one."""
    ending = "es" if noun.endswith(("ch", "s")) else "s"
    return f"{number:,} {noun}{ending * (number != 1)}"
