"""Conversations with tools and thoughts, whose texts by transformers are in golden_chats.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import chat_templates, later_chat_templates

GOLDEN = Path(__file__).parent / "golden_chats.json"
TEMPLATES = ("GPT_OSS", "QWEN_3", "QWEN_3_5", "QWEN_MOE", "OLMOE", "MISTRAL_1", "MISTRAL_3", "PHI_4",
             "PHI_4_MINI", "SMOLLM_3", "GRANITE_3_3", "OLMO_2", "GEMMA_4", "LFM_2", "LFM_2_5")
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

_SYSTEM, _USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "How warm is it in Ålesund?"}
_ANSWER = {"role": "assistant", "content": "9 °C, \"fresh\".", "reasoning_content": "I was told: 9."}
_CALL = {"role": "assistant", "content": "", "thinking": "I shall look.", "tool_calls": [
    {"type": "function", "function": {"name": "weather", "arguments": {"place": "Ålesund", "days": 2}}}]}
_RESULT = {"role": "tool", "content": '{"warmth": 9}'}
_AGAIN = {"role": "user", "content": "And tomorrow?"}
_TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "The weather of a place.", "parameters": {
        "type": "object", "required": ["place"], "properties": {
            "place": {"type": "string", "description": "A town."},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            "days": {"type": "number", "default": 1},
            "names": {"type": "array", "items": {"type": "string"}}}}}},
    {"type": "function", "function": {"name": "time", "description": "The time."}}]

# by name: messages, and what else the template gets
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "a question": ([_USER], {}),
    "a system prompt": ([_SYSTEM, _USER, _ANSWER, _AGAIN], {}),
    "two turns": ([_USER, _ANSWER, _AGAIN], {}),
    "without the beginning of an answer": ([_USER, _ANSWER], {"add_generation_prompt": False}),
    "tools": ([_SYSTEM, _USER], {"tools": _TOOLS}),
    "a call": ([_USER, _CALL, _RESULT], {"tools": _TOOLS}),
    "an answer after a call": ([_USER, _CALL, _RESULT, _ANSWER, _AGAIN], {"tools": _TOOLS}),
    "thinking switched off": ([_USER], {"enable_thinking": False, "reasoning_effort": "low"}),
    "thinking switched on": ([_USER], {"enable_thinking": True, "thinking": True}),
    "a tool of its own": ([_USER], {"builtin_tools": ["python"], "model_identity": "You are a test."}),
}


def template(name: str) -> str:
    return getattr(chat_templates, name, None) or getattr(later_chat_templates, name)
