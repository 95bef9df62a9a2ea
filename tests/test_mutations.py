"""The table of mutants names steps of the core that are there."""

from __future__ import annotations

import pytest

from tests import inside
from tests.mutations import MUTANTS
from tests.schedules import Case


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.breaks}")
def test_each_step_is_found(mutant):
    """Its text stands in its file exactly once, what replaces it compiles, and its cases can be read."""
    text = (inside.PACKAGE / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.before) == 1
    compile(text.replace(mutant.before, mutant.after), mutant.file, "exec")
    assert [repr(Case.parse(case)) for case in mutant.cases] == list(mutant.cases)
