"""Ids of tool calls as Anthropic takes them."""

from typing import Any

from src.integrations.llm.anthropic.ids import with_own_ids


def called(*ids: str) -> dict[str, Any]:
    blocks = [{"type": "tool_use", "id": each, "name": "f", "input": {}} for each in ids]
    return {"role": "assistant", "content": blocks}


def answered(*ids: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": each} for each in ids]}


def ids_in(message: Any) -> list[str]:
    return [block.get("id") or block["tool_use_id"] for block in message["content"]]


def test_calls_of_one_id_become_several_and_results_keep_to_them() -> None:
    told = with_own_ids([called("a", "a_2", "a"), answered("a", "a_2", "a"), called("a"), answered("a")])
    assert ids_in(told[0]) == ids_in(told[1]) == ["a", "a_2", "a_3"]
    assert ids_in(told[2]) == ids_in(told[3]) == ["a_4"]


def test_very_many_calls_of_one_id_are_renamed_in_one_pass() -> None:
    alike = ["x" * 128] * 50_000
    told = with_own_ids([called(*alike), answered(*alike)])
    assert ids_in(told[0]) == ids_in(told[1])
    assert len(set(ids_in(told[0]))) == len(alike)
    assert max(map(len, ids_in(told[0]))) <= 128
