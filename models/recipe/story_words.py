"""The words of the stories: who can be in them, where they play, and the sentences that any plot may use.

Templates here and in the plots are read by `stories_text.expand`: `[a|b]` is a choice, `<rule>` one line of RULES,
`{slot}` a value of the story at hand, `{a slot}` the value with its article, `{Slot}` the value with a capital.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Plot:
    """One kind of story.

    choices: what is drawn once per story; a value is a text for the slot of that name, or a mapping of several slots
    that belong together. beats: paragraphs, each of lines that can stand for one another; an indented line continues
    the one before it, and a last line `-` says that the beat may be left out.
    """

    choices: Mapping[str, Sequence[str | Mapping[str, str]]]
    beats: str


GIRLS = """Lily Anna Mia Emma Rosa Nora Ella Clara Lucy Ruby Ivy Maya Zoe Alice Sara Nina Tara Hana Leila Amina Grace
Molly Poppy Daisy""".split()
BOYS = """Tom Ben Max Sam Leo Finn Jack Oscar Theo Noah Milo Hugo Oliver Peter Daniel Omar Ravi Luca Emil Jonas Arthur
Felix Toby Kofi""".split()
SHE_ANIMALS = "Bella Luna Hazel Tilly Dot Willow Pearl Honey Mimi Clover Penny Olive".split()
HE_ANIMALS = "Bruno Rusty Pip Basil Otto Moss Barley Nibbles Ziggy Acorn Pepper Monty".split()

ANIMALS = "rabbit mouse bear fox duck squirrel hedgehog kitten puppy frog badger otter".split()

SHE, HE = ("she", "her", "her", "herself"), ("he", "him", "his", "himself")

CHILD_HOMES = (
    "a small house near the forest",
    "a village by the sea",
    "a quiet town between two hills",
    "a white house on a hill",
    "a farmhouse beside a river",
    "a cottage at the edge of the woods",
    "an old mill by a stream",
)
ANIMAL_HOMES = (
    "a cozy burrow under an old oak tree",
    "a hollow log near the river",
    "a warm den in the forest",
    "a little house made of sticks",
    "a small house near the forest",
    "a snug home at the edge of the woods",
)

# (what the place is called, in it, to it)
PLACES = (
    ("forest", "in the forest", "to the forest"),
    ("meadow", "in the meadow", "to the meadow"),
    ("park", "in the park", "to the park"),
    ("lake", "by the lake", "to the lake"),
    ("hill", "on the hill", "to the green hill"),
    ("river", "by the river", "to the river"),
)

ELDERS = {
    "mother": SHE,
    "father": HE,
    "grandmother": SHE,
    "grandfather": HE,
    "aunt": SHE,
    "uncle": HE,
}

HELPERS = (
    "wise old owl",
    "friendly crow",
    "gentle deer",
    "slow old turtle",
    "busy beaver",
    "kind old woman",
    "old fisherman",
    "cheerful robin",
    "gray goose",
    "young shepherd",
    "brown horse",
)
HELPER_IS_HE = {"old fisherman", "young shepherd", "slow old turtle", "busy beaver", "friendly crow", "brown horse"}

SNACKS = ("apple", "cookie", "piece of bread", "ripe pear", "handful of berries", "slice of cake", "sweet plum")

TRAITS = ("kind", "curious", "cheerful", "brave", "clever", "gentle", "playful")

HOBBIES = (
    "sing songs",
    "climb trees",
    "draw pictures",
    "look at the stars",
    "jump in puddles",
    "pick flowers",
    "listen to old stories",
    "watch the clouds",
    "run in the wind",
    "collect smooth stones",
)

RULES = {
    "tale": """
Once upon a time, there was a [little|young|small] {kind} named {hero}. <home>
Once upon a time, there was a {trait} [little|young] {kind} [named|called] {hero}. <home>
Once upon a time, there lived a [little|young] {kind} [named|called] {hero}. <home>
Once upon a time, in {home}, there lived a [little|young] {kind} [named|called] {hero}. <like>
There was once a [little|young] {kind} [named|called] {hero} who lived in {home}. <like>
Long ago, a [little|young] {kind} [named|called] {hero} lived in {home}. <like>
In {home}, there lived a [little|young] {kind} [named|called] {hero}. <like>
{hero} was a {trait} [little|young] {kind} who lived in {home}. <like>
[Far away|Not so long ago], in {home}, there lived a {trait} {kind} [named|called] {hero}. <like>
""",
    "home": """
{He} lived in {home} with {his} {elder}.
{He} lived with {his} {elder} in {home}. <like>
{Hero} and {his} {elder} lived in {home}.
{His} home was {home}. <like>
""",
    "like": """
{He} loved to {hobby}.
Every day {he} liked to {hobby}.
{He} was {trait2}, and {he} loved to {hobby}.
Everyone knew {him}, because {he} was so {trait2}.
""",
    "morning": """
One [sunny|bright|fine] morning, a [little|young] {kind} [named|called] {hero} woke up early. <home>
On a [warm|bright|fine] morning in [spring|summer], a [little|young] {kind} [named|called] {hero}
  woke up with a smile. <home>
It was a [lovely|quiet|fresh] morning in [spring|summer]. A [little|young] {kind} named {hero} was
  already awake. <home>
Early one morning, a {trait} [little|young] {kind} [named|called] {hero} went outside. <home>
""",
    "day": """
One [sunny|bright|warm|fine] [day|morning|afternoon],
One day,
One [day|morning] in [spring|summer],
""",
    "same day": """
After breakfast,
That [same|very] morning,
A little later,
""",
    "sad": """
{Hero} sat down and began to cry.
A [big|small] tear rolled down {his} cheek.
{Hero} felt [very|so] sad, and {he} did not know what to do.
{Hero} sat down on a stone with {his} head in {his} {hands}.
{His} eyes filled with tears.
""",
    "meets helper": """
Just then, {a helper} came by. "[Why are you sad|What is wrong|What has happened], little one?" asked the {helper}.
{A helper} saw {him} and came closer. "[Why do you look so sad|What is the matter], my friend?" {hhe} asked.
After a while, {a helper} came along the path. "You look sad. [What is wrong|Can I help you]?" asked the {helper}.
"[Why are you crying|What is the matter]?" said a soft voice. It was {a helper}.
""",
    "joy": """
{Hero} [jumped|clapped {his} {hands}|danced] for joy.
{Hero} laughed and [danced around|jumped up and down].
{Hero} was so happy that {he} [began to sing|laughed out loud|danced in a circle].
A big smile came to {his} face.
""",
    "thanks helper": """
"Thank you[ so much|], kind friend!" {he} said to the {helper}. <pleasure>
"Oh, thank you!" said {hero}, and {he} [hugged the {helper}|gave the {helper} a hug]. <pleasure>
"How can I thank you?" asked {hero}. "Just be kind to someone else one day," said the {helper}.
{He} thanked the {helper} [with all {his} heart|again and again]. <pleasure>
""",
    "pleasure": """
"You are welcome," said the {helper}.
The {helper} smiled. "[Friends help each other|I was happy to help]," {hhe} said.
"It was nothing," said the {helper}[ with a smile|].
""",
    "close": """
From that day on, {hero} [never forgot that|remembered that] {moral}.
That [night|evening], {hero} told {his} {elder} all about it. "[You see|Remember]," said {his} {elder}, "{moral}."
{Hero} went home with a [happy|warm|light] heart. {He} had learned that {moral}.
That night, {hero} fell asleep with a smile, because {he} knew that {moral}.
And so {hero} learned that {moral}. [The end.|]
When {he} came home, {his} {elder} hugged {him}. "I am proud of you," {ehe} said. "Now you know that {moral}."
""",
    "close as friends": """
And {hero} and {friend} stayed friends for [many years|all their lives]. The end.
And so the two friends learned that {moral}. [The end.|]
They never forgot that {moral}.
From that day on, both of them knew that {moral}.
""",
    "close with friend": """
From that day on, {hero} and {friend} were [the best of friends|best friends].
After that, {hero} and {friend} [played together every day|were always together]. They knew that {moral}.
{Hero} and {friend} walked home side by side. They had learned that {moral}.
That night, {hero} told {his} {elder} about {friend}. "[You see|Remember]," said {his} {elder}, "{moral}."
And {hero} and {friend} stayed friends for [many years|all their lives]. The end.
And so the two friends learned that {moral}. [The end.|]
""",
}
