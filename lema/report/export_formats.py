"""Lines of the exported files, in the layouts that other trainers read."""

from collections.abc import Iterable
from typing import Any

from lema.report.card import config_name
from lema.rows import Example, Message
from lema.text.preference_pairs import Pair


def llama_factory(files: Iterable[str]) -> dict[str, Any]:
    """LLaMA-Factory's dataset_info.json: chats and ranked chats, in the roles of OpenAI's format
    (https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md)."""
    tags = {
        "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
        "system_tag": "system",
    }  # fmt: skip
    found = {}
    for name in files:
        kind = name.partition("/")[0]
        about = {"file_name": f"{name}.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}}
        if kind == "ranking":
            ranked = {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}
            found[config_name(name)] = {**about, "ranking": True, "columns": ranked, "tags": tags}
        elif kind == "chat":
            found[config_name(name)] = {**about, "tags": tags}
    return found


def chat_line(row: Example) -> dict[str, Any]:
    return {**_source(row), "messages": [*_turns(row.prompt), *_assistant_turn(row.completion)]}


def prompt_completion_line(row: Example) -> dict[str, Any]:
    return {**_source(row), "prompt": _turns(row.prompt), "completion": _assistant_turn(row.completion)}


def _source(row: Example) -> dict[str, Any]:
    return {"id": row.id, "kind": row.kind, "source_id": row.source_id}


def preference_line(row: Pair) -> dict[str, Any]:
    texts = {"chosen": _assistant_turn(row.chosen), "rejected": _assistant_turn(row.rejected)}
    return {"source_id": row.source_id, "prompt": _turns(row.prompt), "prefix": row.prefix, **texts}


def ranking_line(row: Pair) -> dict[str, Any]:
    (chosen,), (rejected,) = _assistant_turn(row.chosen), _assistant_turn(row.rejected)
    return {"source_id": row.source_id, "messages": _turns(row.prompt), "chosen": chosen, "rejected": rejected}


def _turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _assistant_turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
