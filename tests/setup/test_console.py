"""What the set-up shows, where nobody sits at a terminal."""

import io

import pytest

from ocmt.setup.console import Console


def test_each_step_is_one_numbered_line_with_its_result() -> None:
    out = io.StringIO()
    console = Console(2, out=out)
    with console.step("Node.js") as step:
        step.result = "24.19.0 from PyPI"
    with console.step("OpenClaw"):
        pass
    assert out.getvalue() == "[1/2] Node.js … 24.19.0 from PyPI\n[2/2] OpenClaw … done\n"


@pytest.mark.parametrize(("error", "word"), [(OSError("full"), "failed"), (KeyboardInterrupt(), "stopped")])
def test_a_step_that_did_not_end_well_says_so(error: BaseException, word: str) -> None:
    out = io.StringIO()
    with pytest.raises(type(error)), Console(1, out=out).step("Node.js"):
        raise error
    assert out.getvalue() == f"[1/1] Node.js … {word}\n"
