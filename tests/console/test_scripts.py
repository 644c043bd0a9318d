"""The console's own scripts: they share one scope in a page, so that no two may name a thing alike."""

import re
from collections import Counter

from app.console.pages import STATIC


def test_no_two_scripts_name_a_thing_alike() -> None:
    own = [path for path in STATIC.glob("*.js") if ".min." not in path.name]
    assert len(own) > 3
    names = [
        name for path in own for name in re.findall(r"^(?:const|let|(?:async )?function) (\w+)", path.read_text(), re.M)
    ]
    assert [name for name, count in Counter(names).items() if count > 1] == []
