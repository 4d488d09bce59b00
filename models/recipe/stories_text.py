"""Writes the children's stories that the embedded models are trained on.

A story is a random walk through a plot: the cast is drawn first, and every sentence after that is filled from the same
cast, so names, pronouns and things stay the same from the first line to the last. The same seed gives the same stories.

    python -m lcpu.models.recipe.stories_text --count 3 --seed 1
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator, Mapping

from . import plots_adventure, plots_home
from . import story_words as words

PLOTS = plots_adventure.PLOTS + plots_home.PLOTS
MAX_WORDS = 190

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_RULE = re.compile(r"<([a-z ]+)>")
_SLOT = re.compile(r"\{(?:([aA]) )?(\w+)\}")


def lines(block: str) -> list[str]:
    """The alternatives of a block of text: one per line, where an indented line continues the line before it."""
    return re.sub(r"\n +", " ", block.strip("\n")).split("\n")


RULES = {name: lines(block) for name, block in words.RULES.items()}
BEATS = {id(plot): [lines(beat) for beat in plot.beats.strip("\n").split("\n\n")] for plot in PLOTS}


def with_article(noun: str) -> str:
    """`noun` after "a" or "an"; unchanged if it has an article. Goes by spelling, which serves for these words."""
    if noun.startswith(("a ", "an ", "the ")):
        return noun
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def expand(template: str, slots: Mapping[str, str], rng: random.Random) -> str:
    """Replaces rules, then choices, then slots (whose values may hold slots again), until none is left."""

    def slot(match: re.Match[str]) -> str:
        article, name = match.groups()
        value = slots[name[0].lower() + name[1:]]
        if article:
            value = with_article(value)
        return capital(value) if article == "A" or name[0].isupper() else value

    while _RULE.search(template):
        template = _RULE.sub(lambda match: rng.choice(RULES[match[1]]), template, count=1)
    while _CHOICE.search(template):
        template = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template, count=1)
    while _SLOT.search(template):
        template = _SLOT.sub(slot, template)
    return template


def person(rng: random.Random, prefix: str, name_key: str, taken: Mapping[str, str] | None = None) -> dict[str, str]:
    """A child or a young animal with name, kind and pronouns; not a name or an animal that is `taken`."""
    taken_values = set((taken or {}).values())
    female = rng.random() < 0.5
    if rng.random() < 0.5:
        kind = "girl" if female else "boy"
        names = words.GIRLS if female else words.BOYS
    else:
        kind = rng.choice([animal for animal in words.ANIMALS if animal not in taken_values])
        names = words.SHE_ANIMALS if female else words.HE_ANIMALS
    name = rng.choice([name for name in names if name not in taken_values])
    pronouns = words.SHE if female else words.HE
    keys = ("he", "him", "his", "himself")
    return {name_key: name, prefix + "kind": kind} | {prefix + key: p for key, p in zip(keys, pronouns, strict=True)}


def cast(rng: random.Random) -> dict[str, str]:
    """Everyone and everything that any plot may name."""
    slots = person(rng, "", "hero")
    slots |= person(rng, "f", "friend", slots)
    is_child = slots["kind"] in ("girl", "boy")
    hand = "hand" if is_child else "wing" if slots["kind"] == "duck" else "paw"
    elder = rng.choice(list(words.ELDERS))
    helper = rng.choice(words.HELPERS)
    helper_pronouns = words.HE if helper in words.HELPER_IS_HE else words.SHE
    place, in_place, to_place = rng.choice(words.PLACES)
    spots = rng.sample(plots_adventure.SPOTS, 3)
    trait, trait2 = rng.sample(words.TRAITS, 2)
    slots |= dict(zip(("ehe", "ehim", "ehis"), words.ELDERS[elder], strict=False))
    slots |= dict(zip(("hhe", "hhim", "hhis"), helper_pronouns, strict=False))
    slots |= dict(zip(("spot", "spot2", "spot3"), spots, strict=True))
    return slots | {
        "hand": hand,
        "hands": hand + "s",
        "home": rng.choice(words.CHILD_HOMES if is_child else words.ANIMAL_HOMES),
        "elder": elder,
        "helper": helper,
        "place": place,
        "in_place": in_place,
        "to_place": to_place,
        "trait": trait,
        "trait2": trait2,
        "hobby": rng.choice(words.HOBBIES),
        "snack": rng.choice(words.SNACKS),
    }


def _names_kind(value: str | Mapping[str, str], slots: Mapping[str, str]) -> bool:
    """Whether a choice speaks of an animal of the hero's or the friend's kind, so that it is unclear who is meant."""
    return slots["kind"] in str(value) or slots["fkind"] in str(value)


def draft(plot: words.Plot, rng: random.Random) -> str:
    """One story of any length, in a single paragraph."""
    slots = cast(rng)
    for name, values in plot.choices.items():
        value = rng.choice([value for value in values if not _names_kind(value, slots)])
        slots |= {name: value} if isinstance(value, str) else value
    in_the_morning = rng.random() < 0.25
    slots["open"] = expand("<morning>" if in_the_morning else "<tale>", slots, rng)
    slots["day"] = expand("<same day>" if in_the_morning else "<day>", slots, rng)
    slots["tale"] = expand("<tale>", slots, rng)
    text = " ".join(expand(pick(beat, rng), slots, rng) for beat in BEATS[id(plot)])
    return re.sub(r" +", " ", text).strip()


def pick(beat: list[str], rng: random.Random) -> str:
    """One line of a beat; nothing, in four of ten stories, where the beat may be left out."""
    if beat[-1] != "-":
        return rng.choice(beat)
    return "" if rng.random() < 0.4 else rng.choice(beat[:-1])


def story(rng: random.Random) -> str:
    """One story of at most MAX_WORDS words."""
    plot = rng.choice(PLOTS)
    while True:
        text = draft(plot, rng)
        if len(text.split()) <= MAX_WORDS:
            return text


def stories(count: int, seed: int) -> Iterator[str]:
    """`count` different stories; the same seed gives the same stories."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        text = story(rng)
        if text not in seen:
            seen.add(text)
            yield text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print("\n\n".join(stories(args.count, args.seed)))


if __name__ == "__main__":
    main()
