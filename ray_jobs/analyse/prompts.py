"""A conversation in the forms of ChatML and Llama 2, with the tokens that a model's tokenizer makes of each."""

from typing import Any

from configs.analyse import AnalyseSpec
from ray_jobs.analyse.tables import Rows
from ray_jobs.inference.loading import Loaded
from ray_jobs.tokenizer.chat import CHAT_TEMPLATES

SYSTEM = "You are a helpful assistant."
ANSWER = "Certainly."
FORM_TOKENS = {"chatml": ("<|im_start|>", "<|im_end|>"), "llama2": ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")}


def analyse(loaded: Loaded, spec: AnalyseSpec) -> list[Rows]:
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": spec.prompt},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "Go on."},
    ]
    tokenizer: Any = loaded.tokenizer
    summary, tables = [], []
    for form, template in CHAT_TEMPLATES.items():
        text = tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=form == "chatml",
            bos_token=tokenizer.bos_token or "",
            eos_token=tokenizer.eos_token or "",
        )
        ids = tokenizer.encode(text, add_special_tokens=False)
        own = {mark: len(tokenizer.encode(mark, add_special_tokens=False)) for mark in FORM_TOKENS[form]}
        summary.append(
            {
                "form": form,
                "tokens": len(ids),
                "of the form itself": len(ids)
                - sum(len(tokenizer.encode(one["content"], add_special_tokens=False)) for one in messages),
                "tokens of its marks": ", ".join(f"{mark} {count}" for mark, count in own.items()),
                "model's own": template == tokenizer.chat_template,
                "text": text,
            }
        )
        rows = [{"id": token, "token": repr(tokenizer.decode([token]))} for token in ids]
        tables.append(Rows(f"{form}: token ids", rows))
    note = (
        "A mark of one token is a token of its own; of several it is plain text to this model, which has not learnt it."
    )
    return [Rows(f"Forms of a conversation for {loaded.name}", summary, note), *tables]
