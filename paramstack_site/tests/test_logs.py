"""The merged log says who spoke, loses no line at a rotation, and begins with what is new."""

import io
from pathlib import Path

from paramstack_site import logs


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_it_begins_with_what_is_new_and_waits_for_whole_lines(tmp_path: Path):
    web, beat = tmp_path / "web.log", tmp_path / "beat.log"
    append(web, "yesterday\n")
    follower = logs.Follower({"web": web, "beat": beat})
    append(web, "one\ntw")
    assert follower.lines() == [("web", "one")]
    append(web, "o\n")
    append(beat, "tick\n")
    assert follower.lines() == [("web", "two"), ("beat", "tick")]
    follower.close()


def test_a_rotation_loses_nothing(tmp_path: Path):
    web = tmp_path / "web.log"
    append(web, "")
    follower = logs.Follower({"web": web})
    append(web, "before\n")
    web.rename(tmp_path / "web.log.1")
    append(web, "after\n")
    assert [line for _, line in follower.lines()] == ["before", "after"]
    follower.close()


def test_lines_carry_the_program_and_no_colour_off_a_terminal(tmp_path: Path):
    out = io.StringIO()
    printer = logs.Printer({"web": tmp_path / "web.log", "supervisor": tmp_path / "supervisor.log"}, out)
    printer.start()
    append(tmp_path / "web.log", "hello\n")
    append(tmp_path / "supervisor.log", "INFO success: web entered RUNNING state\nexited: web\n")
    printer.finish()
    assert out.getvalue() == "web        | hello\nsupervisor | exited: web\n"
