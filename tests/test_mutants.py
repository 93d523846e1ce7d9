"""The table of small wrong changes keeps up with the code; mutants.py tries them."""

from mutants import MUTANTS, PACKAGE, ROOT


def test_the_text_that_each_changes_is_there_once() -> None:
    found = {
        mutant.name: (ROOT / PACKAGE / mutant.file).read_text().count(mutant.old)
        for mutant in MUTANTS
    }
    assert {name: count for name, count in found.items() if count != 1} == {}


def test_each_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
