"""Rounding, done once and at the end: integers in, integers out, so that no order of adding changes a digit."""


def half_even(numerator: int, denominator: int) -> int:
    """The quotient as the nearest integer, a tie going to the even one; the denominator is positive."""
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient
