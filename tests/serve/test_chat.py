"""A conversation in the terminal is what the engine writes to the model's form of it."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.inference import DecodingSpec
from configs.serve import ChatSpec
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.loading import Loaded, load
from ray_jobs.serve.chat import Chat
from tests.serve.tiny import CONTEXT, write_model

GREEDY = DecodingSpec(temperature=0, max_new_tokens=12)


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> Loaded:
    return load(str(tiny_model), device="cpu", dtype="fp32")


class Terminal(io.StringIO):
    """Written to as one that somebody looks at."""

    def isatty(self) -> bool:
        return True


def written(loaded: Loaded, prompt: list[int], spec: DecodingSpec = GREEDY) -> str:
    engine = Engine(loaded.model, loaded.num_tokens, loaded.end_tokens)
    (request,) = engine.add(prompt, spec)
    engine.run()
    tokenizer: Any = loaded.tokenizer
    return str(tokenizer.decode(request.answer, skip_special_tokens=True))


def test_every_turn_is_answered_after_all_before_it(loaded: Loaded) -> None:
    out = io.StringIO()
    chat = Chat(loaded, ChatSpec(model="tiny", system="Be brief.", decoding=GREEDY), out)
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    wanted = ""
    for said in ("the mill", "the water"):
        chat.turn(said)
        messages.append({"role": "user", "content": said})
        answer = written(loaded, loaded.encode_chat(messages))
        messages.append({"role": "assistant", "content": answer})
        wanted += answer + "\n"
    assert out.getvalue() == wanted
    chat.reset()
    out.truncate(0)
    chat.turn("the mill")
    assert chat.turns[1]["content"] == messages[2]["content"]


def test_a_long_conversation_leaves_out_its_oldest_turns_and_says_so(loaded: Loaded) -> None:
    out = Terminal()
    chat = Chat(replace(loaded, end_tokens=()), ChatSpec(model="tiny", decoding=GREEDY), out)
    for number in range(12):
        chat.turn(f"{number} the mill wheel turns")
    assert "its oldest turn is left out" in out.getvalue()
    assert chat.turns[0]["content"] != "0 the mill wheel turns" and len(chat.turns) > 2
    with pytest.raises(ValueError, match=f"the context is {CONTEXT}"):
        chat.turn("word " * CONTEXT)
    chat.turn("the mill")


def test_a_base_model_goes_on_with_the_text_itself(tmp_path: Path) -> None:
    base = load(str(write_model(tmp_path, chat=False)), device="cpu", dtype="fp32")
    assert base.is_base
    out = io.StringIO()
    chat = Chat(base, ChatSpec(model="tiny", decoding=GREEDY), out)
    chat.turn("the mill")
    assert out.getvalue() == written(base, base.encode("the mill")) + "\n"
    assert chat.turns == []


def test_an_answer_ends_before_a_stop_text(loaded: Loaded) -> None:
    spec = DecodingSpec(temperature=0, max_new_tokens=40)
    prompt = loaded.encode_chat([{"role": "user", "content": "the mill"}])
    whole = written(loaded, prompt, spec)
    stop = whole[len(whole) // 2 :][:2]
    out = io.StringIO()
    Chat(loaded, ChatSpec(model="tiny", decoding=spec.model_copy(update={"stop": (stop,)})), out).turn("the mill")
    assert out.getvalue() == whole[: whole.index(stop)] + "\n"


@pytest.mark.slow
def test_ctrl_c_ends_the_answer_and_not_the_program(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    spec = {"model": str(folder), "device": "cpu", "decoding": {"max_new_tokens": 240, "seed": 3}}
    # Nothing ends an answer but its limit.
    program = (
        "import sys, time, ray_jobs.inference.loading as loading, ray_jobs.inference.engine as engine\n"
        "loading.end_tokens = lambda *_: ()\n"
        "step = engine.Engine.step\n"
        "engine.Engine.step = lambda self: (time.sleep(0.03), step(self))[1]\n"
        "sys.argv[1:] = ['chat', sys.argv[1]]\n"
        "from ray_jobs.serve.__main__ import main\n"
        "sys.exit(main())\n"
    )
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(spec)], stdin=other, stdout=other, stderr=subprocess.DEVNULL
    )
    os.close(other)
    shown = ""

    def wait_for(text: str) -> None:
        nonlocal shown
        deadline = time.monotonic() + 180
        while text not in shown:
            assert select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0], shown
            shown += os.read(terminal, 4096).decode(errors="replace")
        shown = shown[shown.index(text) + len(text) :]

    try:
        wait_for("you> ")
        process.send_signal(signal.SIGINT)  # with nothing to end
        wait_for("/quit")
        wait_for("you> ")
        os.write(terminal, b"the mill\n")
        wait_for("the mill\r\n")  # the terminal's own echo
        while not re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\s", "", shown):  # the answer begins
            assert select.select([terminal], [], [], 60)[0]
            shown += os.read(terminal, 4096).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        wait_for("interrupted")
        wait_for("you> ")
        os.write(terminal, b"/quit\n")
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(terminal)
