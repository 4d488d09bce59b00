"""Replies in the harmony format of gpt-oss: what the model thought, and what it answered.

After "<|start|>assistant", a reply goes on with "<|channel|>analysis<|message|>...<|end|>", then
"<|start|>assistant<|channel|>final<|message|>...". Source: OpenAI, https://github.com/openai/harmony
"""

from __future__ import annotations

_CHANNEL, _MESSAGE, _START = "<|channel|>", "<|message|>", "<|start|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>")


def message_of(reply: str) -> dict[str, str]:
    """The message of the assistant that a reply is: "content", and "thinking" where the reply says what that was.

    Templates take both apart, and refuse channels in a content. A reply of any other format is the content.
    """
    if not reply.lstrip().startswith(_CHANNEL):
        return {"role": "assistant", "content": reply}
    texts: dict[str, list[str]] = {"analysis": [], "commentary": [], "final": []}
    for part in reply.split(_START):
        header, found, text = part.partition(_MESSAGE)
        channel = header.partition(_CHANNEL)[2].split("<", 1)[0].split()
        if found and channel and channel[0] in texts:
            end = min((at for each in _ENDS if (at := text.find(each)) >= 0), default=len(text))
            texts[channel[0]].append(text[:end])
    content = "".join(texts["final"]) or "\n".join(texts["commentary"])
    thinking = "\n".join(texts["analysis"])
    return {"role": "assistant", "content": content} | ({"thinking": thinking} if thinking else {})
