"""Writes golden_chats.json: `python -m tests.engine.make_golden_chats`, where transformers is installed."""

from __future__ import annotations

import json

from .chat_cases import CASES, GOLDEN, TEMPLATES, TOKENS, template


def main() -> None:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    golden: dict[str, dict[str, str | None]] = {}
    for name in TEMPLATES:
        golden[name] = {}
        for case, (messages, options) in CASES.items():
            try:
                texts, _ = render_jinja_template(conversations=[messages], chat_template=template(name),
                                                 **{"add_generation_prompt": True} | options, **TOKENS)
                golden[name][case] = texts[0]
            except (TemplateError, TypeError) as refused:
                print(f"{name}, {case}: {refused}")
                golden[name][case] = None
    GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
