"""Refs move by compare-and-swap and remember; runs are found again."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from ray_jobs.checkpoint.refs import RefMoved, list_refs, move_ref, read_log, read_ref
from ray_jobs.checkpoint.runs import Run, last_run_of, list_runs, new_run_id, read_run, write_run
from ray_jobs.checkpoint.store import Store

NAME = "models/production"


def test_a_ref_is_the_highest_entry_and_its_log_the_history(store: Store) -> None:
    assert read_ref(store, NAME) is None
    for number in range(3):
        move_ref(store, NAME, {"node": f"n{number}"}, "because", expected=number)
    entry = read_ref(store, NAME)
    assert entry is not None
    assert (entry.number, entry.target) == (3, {"node": "n2"})
    assert [old.target["node"] for old in read_log(store, NAME)] == ["n0", "n1", "n2"]
    assert list_refs(store) == [NAME]


def test_who_did_not_see_the_last_entry_cannot_move_a_ref(store: Store) -> None:
    move_ref(store, NAME, {"node": "a"}, "first", expected=0)
    move_ref(store, NAME, {"node": "b"}, "second", expected=1)
    for stale in (0, 1):
        with pytest.raises(RefMoved, match="read it again"):
            move_ref(store, NAME, {"node": "c"}, "late", expected=stale)
    with pytest.raises(AssertionError):  # a gap in the log would let two writers both be right
        move_ref(store, NAME, {"node": "c"}, "early", expected=7)
    assert [entry.target["node"] for entry in read_log(store, NAME)] == ["a", "b"]


def test_one_of_many_racing_movers_wins(store: Store) -> None:
    def move(writer: int) -> bool:
        try:
            move_ref(store, NAME, {"writer": writer}, "race", expected=0)
        except RefMoved:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(move, range(8)))
    assert won.count(True) == 1
    (entry,) = read_log(store, NAME)
    assert entry.target == {"writer": won.index(True)}


def test_a_ref_whose_name_begins_like_anothers_is_apart(file_store: Store) -> None:
    move_ref(file_store, "models", {"node": "a"}, "", expected=0)
    move_ref(file_store, "models/production", {"node": "b"}, "", expected=0)
    move_ref(file_store, "models/production", {"node": "c"}, "", expected=1)
    entry = read_ref(file_store, "models")
    assert entry is not None
    assert entry.target == {"node": "a"}
    assert list_refs(file_store) == ["models", "models/production"]


def a_run(recipe: str) -> Run:
    return Run(id=new_run_id(recipe, 1.0), recipe=recipe, started=1.0, seconds=2.0, state="COMPLETED", nodes={})


def test_runs_are_found_by_id_by_beginning_and_by_recipe(file_store: Store) -> None:
    demo, other = a_run("demo"), a_run("my-demo-2")
    assert last_run_of(file_store, "demo") is None
    write_run(file_store, demo)
    write_run(file_store, other)
    assert sorted(list_runs(file_store)) == sorted([demo.id, other.id])
    assert read_run(file_store, demo.id) == demo
    assert read_run(file_store, other.id[:-2]) == other
    last = last_run_of(file_store, "demo")
    assert last is not None
    assert last.id == demo.id  # and not that of a recipe whose name holds this one's
    with pytest.raises(ValueError, match="2 runs called"):
        read_run(file_store, demo.id[:4])
    with pytest.raises(ValueError, match="0 runs called 'x'"):
        read_run(file_store, "x")
