"""Plots near home: quarrels and friends, broken things, noises at night, cooking, gardens, races and winter."""

from __future__ import annotations

from .story_words import Plot

QUARREL = Plot(
    choices={
        "toy": ("red wagon", "little boat", "drum", "kite", "new ball", "wooden horse", "blue scooter"),
        "moral": (
            "it is more fun to share",
            "taking turns makes everyone happy",
            "a friend is worth more than a toy",
        ),
    },
    beats="""
{open}

{His} best friend was {friend}, {a fkind} who lived nearby.
{He} had a good friend named {friend}. {friend} was {a fkind}[, and the two played together every day|].

{day} they found {a toy} {in_place}. "I saw it first!" said {hero}. "No, I did!" said {friend}.
{day} {his} {elder} gave them {a toy}. "I want to play with it first," said {hero}. "No, me first!" said {friend}.
{day} {hero} and {friend} both wanted to play with the same {toy}. "It is mine!" they both shouted.

{Hero} pulled on one side, and {friend} pulled on the other. [Crack!|] The {toy} almost broke.
They pulled and shouted until both of them were angry. "Then I will not play with you," said {friend}, and {fhe}
  went away.
"You are not my friend anymore," said {friend}. {Fhe} [turned around|went home] and did not look back.

Now {hero} had the {toy} all to {himself}. But it was no fun to play alone.
{Hero} sat next to the {toy}, but {he} did not feel like playing. {He} missed {friend}.

"Why are you so quiet?" asked {his} {elder}. "I have the {toy}, but I have no one to play with," said {hero}. "And what
  is more fun," asked {his} {elder}, "a toy or a friend?"
{A helper} came by. "What a nice {toy}," said the {helper}. "But why do you look so sad?" {Hero} told {hhim} everything. "A toy cannot laugh with
  you," said the {helper}, "but a friend can."

[Then|At last], {hero} understood. A friend is more fun than any toy.
{Hero} thought about it for a long time. Then {he} [had an idea|knew what to do].
-

{He} ran to {friend}. "I am sorry," {he} said. "You can play with it first, and then it is my turn."
{He} took the {toy} and went to find {friend}. "I am sorry that I shouted," {he} said. "Let us take turns."

"I am sorry too," said {friend}[ with a smile|]. And they [hugged|shook {hands}].
{friend} smiled. "I missed you," {fhe} said. "I am sorry too."
-

They took turns all [day|afternoon], and it was [much|twice] more fun than before.
First {friend} played, and then {hero} played. They laughed until the sun went down.

<close as friends>
""",
)

BROKEN = Plot(
    choices={
        "item": ("blue cup", "glass bowl", "flower pot", "clay jug", "white plate", "old lamp"),
        "cause": (
            "was running through the house",
            "was playing with a ball in the kitchen",
            "was reaching for a cookie",
            "was dancing around the table",
            "was playing that {he} could fly",
        ),
        "hiding": ("under the bed", "behind the door", "under a cloth", "in a box"),
        "moral": (
            "it is always best to tell the truth",
            "telling the truth makes your heart light",
            "everyone makes mistakes, and it takes courage to say so",
        ),
    },
    beats="""
{open}

{His} {elder} had {a item} that {ehe} loved very much.
On the table stood {a item}. It was the favorite thing of {his} {elder}.

{day} {hero} {cause}. [Crash!|Bang!] The {item} fell to the floor and broke.
{day} {he} {cause} when {he} hit the {item}. It fell down and broke into [three|many] pieces.

"Oh no!" {he} whispered. {His} {elder} was in the garden and had not heard it.
{Hero} stood very still. What would {his} {elder} say?
-

Quickly, {he} hid the pieces {hiding}. But {he} did not feel good.
{He} was so afraid that {he} hid the pieces {hiding}. "Nobody will know," {he} thought.

At dinner, {hero} could not eat. {His} tummy hurt, and {he} did not say a word.
That evening, {he} could not play, and {he} could not sleep. {He} kept thinking about the {item}.
{His} {elder} came in and began to look for the {item}. {Hero} looked at the floor, and {his} face was red.
-

"Is something wrong?" asked {his} {elder}.
"You are so quiet today," said {his} {elder}. "What is the matter?"

{Hero} took a deep breath. "I broke your {item}," {he} said. "I hid the pieces. I am so sorry."
Tears ran down {his} face. "It was me," said {hero}. "I broke the {item}, and I was afraid to tell you."

{His} {elder} was quiet for a moment. Then {ehe} took {him} in {ehis} arms. "Thank you for telling me the truth," {ehe}
  said.
"I am sad about the {item}," said {his} {elder}, "but I am glad that you told me the truth."

Together they glued the pieces, one by one. The {item} was not perfect, but it was [whole again|even more special now].
The next day, they made a new one together. It was a little crooked, but {his} {elder} liked it even more.
They put the pieces back together with glue. "Now it has a story to tell," said {his} {elder}.

{Hero} felt as light as a feather. From that day on, {he} remembered that {moral}.
That night, {hero} slept well, because {he} knew that {moral}.
And so {hero} learned that {moral}. [The end.|]
""",
)

NIGHT = Plot(
    choices={
        "noise": (
            {"noise": "tap, tap, tap", "from": "the window", "cause": "a branch that moved in the wind"},
            {"noise": "scratch, scratch", "from": "under the bed", "cause": "a tiny mouse that was looking for crumbs"},
            {"noise": "hoo, hoo", "from": "the garden", "cause": "a young owl that was calling for a friend"},
            {"noise": "drip, drip, drip", "from": "the kitchen", "cause": "water that fell into a bucket"},
            {"noise": "creak, creak", "from": "the stairs", "cause": "the old cat that was coming up to sleep"},
            {"noise": "thump, thump", "from": "the roof", "cause": "a family of pigeons that could not sleep"},
        ),
        "fear": ("monster", "ghost", "dragon", "giant", "witch"),
        "light": ("lamp", "candle", "torch", "lantern"),
        "moral": (
            "things look less scary in the light",
            "being brave means to go on when you are afraid",
            "most monsters are only made of dreams",
        ),
    },
    beats="""
{tale}

But there was one thing {he} did not like. {Hero} was afraid of the dark.
{He} was [happy|cheerful] all day long, but at night {he} was afraid.
-

One night, {hero} lay in bed and could not sleep. The moon was hiding behind the clouds.
One night, when everyone was asleep, {hero} woke up. It was very dark.
It was a dark and windy night, and {hero} was in bed.

Then {he} heard a strange noise from {from}. It went {noise}. [What could it be?|]
Suddenly, there was a noise. It came from {from}, and it went {noise}.

"It is {a fear}!" thought {hero}. {He} pulled the blanket over {his} head.
{Hero} sat up. {His} heart was beating fast. "Maybe it is {a fear}," {he} whispered.

But the noise did not stop. It went {noise} again, [and this time it was louder|even louder than before].
{He} waited and listened. There it was again, {noise}.
-

{He} wanted to call {his} {elder}, but no sound came out. "Then I must look myself," {he} thought, and {he} took {a light}.
{Hero} thought of {his} {elder}, who always said, "Look first, and be afraid later." So {he} got up and took {a light}.
"I must be brave," {he} said to {himself}. {He} took {a light} and stood up.

Step by step, {hero} went closer with the {light} in {his} {hand}.
With the {light} in {his} {hand}, {hero} walked slowly toward the sound. The floor was cold.

And what did {he} see? It was not {a fear} at all. It was only {cause}!
{He} held up the {light} and began to laugh. There was no {fear}. It was only {cause}.

"[Is that all?|So it was only you!]" said {hero}, and {he} laughed [out loud|until {his} tummy hurt].
"And I was so afraid of you!" said {hero}[ with a big smile|].
{Hero} felt a little silly, but also very proud.
-

{He} went back to bed and slept until morning. Now {he} knew that {moral}.
In the morning, {hero} told {his} {elder} the whole story. "You were very brave," said {his} {elder}, and {ehe} gave
  {him} a kiss.
From that night on, {hero} was not afraid of the dark anymore. {He} had learned that {moral}.
""",
)

CAKE = Plot(
    choices={
        "dish": (
            {
                "dish": "apple cake",
                "missing": "eggs",
                "was": "were",
                "is": "are",
                "it": "them",
                "seller": "farmer",
                "task": "feed the hens",
            },
            {
                "dish": "honey cake",
                "missing": "honey",
                "was": "was",
                "is": "is",
                "it": "it",
                "seller": "old beekeeper",
                "task": "water the flowers",
            },
            {
                "dish": "berry pie",
                "missing": "flour",
                "was": "was",
                "is": "is",
                "it": "it",
                "seller": "miller",
                "task": "sweep the floor",
            },
            {
                "dish": "carrot soup",
                "missing": "carrots",
                "was": "were",
                "is": "are",
                "it": "them",
                "seller": "gardener",
                "task": "pull out the weeds",
            },
            {
                "dish": "plum cake",
                "missing": "milk",
                "was": "was",
                "is": "is",
                "it": "it",
                "seller": "shepherd",
                "task": "look after the goats",
            },
            {
                "dish": "pumpkin soup",
                "missing": "salt",
                "was": "was",
                "is": "is",
                "it": "it",
                "seller": "fisherman",
                "task": "mend the nets",
            },
        ),
        "seller pronoun": ({"seller_he": "he"}, {"seller_he": "she"}),
        "moral": (
            "a gift made with love is the best gift",
            "good things are worth some work",
            "when you help others, they will help you too",
        ),
    },
    beats="""
{open}

The next day was the birthday of {his} {elder}, and {hero} wanted to make {a dish} for {ehim}.
{day} {hero} remembered that it was the birthday of {his} {elder}. "I will make {a dish}!" {he} said.

{He} took out a big bowl and a wooden spoon. But there was one problem. There {was} no {missing} in the house.
But when {he} looked in the kitchen, {he} saw that there {was} no {missing}. "I cannot make {a dish} without {missing},"
  {he} said.

So {hero} went to the {seller}. "May I have some {missing}, please?" {he} asked.
{He} put on {his} shoes and ran to the {seller}. "I need some {missing} for {a dish}," {he} said. "But I have no money."

"I will give you some," said the {seller}, "if you help me to {task}."
"Of course," said the {seller}, "but I am so tired today. Could you help me to {task}?"

"[I will do it gladly|Of course I will]," said {hero}. {He} worked hard [until it was done|for an hour].
So {hero} helped to {task}. It was hard work, but {he} did not stop until it was done.

"Well done!" said the {seller}, and {seller_he} gave {hero} more {missing} than {he} needed.
The {seller} was very pleased. "Here {is} your {missing}," {seller_he} said. "You have earned {it}."

{He} ran home and began to cook. {He} stirred and stirred, and soon the house smelled wonderful.
Back at home, {hero} made the {dish} all by {himself}. There was a little [mess|flour on {his} nose], but it smelled
  very good.

When {his} {elder} came in, the {dish} was on the table. "Happy birthday!" called {hero}.
In the evening, {he} put the {dish} on the table. "[Surprise|Happy birthday]!" {he} shouted when {his} {elder} came in.

"This is the best {dish} I have ever eaten," said {his} {elder}, and {ehe} hugged {hero}.
{His} {elder} had tears of joy in {ehis} eyes. "Did you make this for me?" {ehe} asked. "It is [delicious|wonderful]!"

They ate together and [sang songs|told stories] until bedtime. {Hero} had learned that {moral}.
They invited the {seller} too, and there was enough for everyone. [It was a lovely birthday.|]
And {hero} knew that {moral}. [The end.|]
""",
)

GARDEN = Plot(
    choices={
        "plant": (
            {"plant": "sunflower", "result": "a sunflower as tall as the house", "shared": "seeds", "appears": "was"},
            {"plant": "pumpkin", "result": "a pumpkin as big as a wagon", "shared": "pumpkin soup", "appears": "was"},
            {"plant": "strawberry", "result": "a hundred sweet strawberries", "shared": "berries", "appears": "were"},
            {"plant": "bean", "result": "beans that climbed up to the roof", "shared": "beans", "appears": "were"},
            {"plant": "melon", "result": "a round and juicy melon", "shared": "melon", "appears": "was"},
        ),
        "moral": (
            "good things take time",
            "if you wait and care, good things will grow",
            "patience brings sweet fruit",
        ),
    },
    beats="""
{open}

{day} {a helper} gave {him} a tiny seed. "This is {a plant} seed," said the {helper}. "Take good care of it."
{day} {hero} found a tiny seed {spot2}. "That is {a plant} seed," said {a helper}. "Plant it, and you will see."

{Hero} dug a small hole in the garden, put in the seed, and gave it some water.
{He} ran home and planted the seed in the garden[ behind the house|]. Then {he} gave it water.

The next day, {he} ran to look. But there was nothing to see. "Why does it not grow?" {he} asked.
{He} waited and waited. One day passed, and then two, but nothing happened. {Hero} was not happy.

"Maybe I should dig it up," {he} thought. But the {helper} shook {hhis} head. "Be patient," {hhe} said.
"Grow, little seed, grow!" shouted {hero}. The {helper} laughed. "You cannot make it grow by shouting," {hhe} said.
"It will never grow," {he} told {his} {elder}. "Give it time," said {his} {elder}. "Seeds like sun, water, and patience."
-

So {hero} watered the seed every day. {He} pulled out the weeds and sang to it.
So every morning, {he} brought water, and every evening, {he} said good night to the seed.

Then, one morning, there was a tiny green leaf! <joy>
One day after the rain, something green looked out of the ground. "It is growing!" cried {hero}.

Day by day, the plant grew bigger. At the end of summer, there {appears} {result}.
The sun shone, and the rain fell. The plant grew and grew until there {appears} {result}.

{Hero} was so proud. {He} invited all {his} friends, and they shared the {shared}.
"Look what I have grown!" said {hero}. {He} shared the {shared} with everyone, even with the birds.

"You see?" said the {helper}. "[Good work|It was worth it]!" {Hero} smiled.
-

{He} kept one seed for the next spring, because {he} had learned that {moral}.
And so {hero} learned that {moral}. [The end.|]
From that day on, when {hero} had to wait for something, {he} remembered that {moral}.
""",
)

RACE = Plot(
    choices={
        "prize": ("a golden cup", "a basket of fruit", "a blue ribbon", "a big cake", "a silver star"),
        "fall": (
            "fell into a muddy hole",
            "tripped over a root and hurt {fhis} foot",
            "slipped on a wet stone and fell down",
            "got stuck in a thorny bush",
        ),
        "moral": (
            "helping a friend is better than winning",
            "a kind heart wins more than fast feet",
            "nobody is too slow to do something great",
        ),
    },
    beats="""
{open}

{day} there was a big race {in_place}. The winner would get {prize}.
{day} everyone {in_place} was talking about the great race. The prize was {prize}.

"I will win," said {friend}, {a fkind}. "I am the fastest of all[|, and you are much too slow, {hero}]."
{friend}, {a fkind}, was very fast. "Nobody can beat me," {fhe} said[ and laughed|].

{Hero} was not very fast, but {he} wanted to try. {He} practiced every day before the race.
"I may be slow," said {hero}, "but I will do my best." {His} {elder} smiled at {him}.
-

When the day came, everyone stood in line. "One, two, three, go!" called {a helper}.
{A helper} gave the sign, and off they went. [Everyone cheered.|]

{friend} ran like the wind and was soon far ahead. {Hero} ran as well as {he} could.
{friend} was in front, and {hero} was last. But {hero} did not give up.

But suddenly, {friend} {fall}. "[Ouch|Help]!" cried {friend}. The others ran past {fhim}.
Then {friend} did not look where {fhe} was going and {fall}. The others did not stop.

Only {hero} stopped. "[Are you hurt|Can you stand up]?" {he} asked. "You will lose the race," said {friend}.
{Hero} saw it and stopped. "I will help you," {he} said. "But what about the race?" asked {friend}.

"That does not matter," said {hero}. {He} helped {friend} up, and they walked to the end together.
"You are more important than the race," said {hero}. Arm in arm, they went on, and they came in last.

Everyone clapped and cheered. "[This is our real winner|Here comes the real winner]," said the {helper}, and {hhe} gave
  {hero} {prize}.
They were the last, but the {helper} gave {prize} to {hero}. "You have the biggest heart of all," {hhe} said.

"I am sorry that I laughed at you," said {friend}. "[Will you be my friend|Can we be friends]?" "Yes," said {hero}.
{friend} looked at the ground. "I was not nice to you," {fhe} said. "That is all right," said {hero}.
-

They shared the prize, and everyone was happy. And {hero} knew that {moral}.
<close with friend>
""",
)

NEW_FRIEND = Plot(
    choices={
        "new": (
            {"skill": "draw", "does": "drew a picture of {hero} in the sand"},
            {"skill": "whistle", "does": "whistled a song like a bird"},
            {"skill": "tell stories", "does": "told a story about a dragon and a star"},
            {"skill": "make kites", "does": "made a kite out of paper and string"},
            {"skill": "build boats", "does": "built a boat out of a leaf and a stick"},
        ),
        "game": ("hide and seek", "catch", "ball", "pirates"),
        "moral": (
            "a friendly word can open every door",
            "a new friend may be waiting nearby",
            "the quiet ones can be wonderful friends",
        ),
    },
    beats="""
{open}

{day} a new family moved in next door. They had [one child|a child], {a fkind} named {friend}.
{day} {he} saw someone new {in_place}. It was {a fkind} named {friend}, who had just moved there.

{friend} sat all alone {spot2} and did not play with the others.
{friend} stood {spot2} and watched the others play. {Fhe} did not say a word.

"Why does {friend} never play with us?" asked {hero}. "Maybe {fhe} is shy," said {his} {elder}.
"{friend} looks lonely," {hero} told {his} {elder}. "Then go and say hello," said {his} {elder}.
{Hero} felt sorry for {fhim}. {He} knew how it felt to be alone.

So {hero} went over to {fhim}. "Hello, I am {hero}," {he} said. "Do you want to play {game}?"
{Hero} walked up to {fhim} and smiled. "Would you like to play {game} with me?" {he} asked.

But {friend} only shook {fhis} head and looked at {fhis} feet.
{friend} turned red and did not answer.

{Hero} did not give up. {He} sat down next to {fhim} and shared {a snack}.
"That is all right," said {hero}. "We can just sit here." And {he} gave {fhim} half of {a snack}.
-

After a while, {friend} said quietly, "I can {skill}." "Really? Please show me!" said {hero}.
They sat there for some time. Then {friend} whispered, "Do you want to see what I can do? I can {skill}."

And {friend} {does}. {Hero} had never seen anything so [wonderful|lovely]. "You are amazing!" {he} said.
Then {friend} {does}. "[That is wonderful|How did you do that]!" cried {hero}. {friend} began to smile.

Soon the other children came to see it too. Everyone wanted to play with {friend}.
{friend} showed {hero} how to do it, and they laughed a lot.
Then they played {game} until it was time for dinner.

<close with friend>
""",
)

WINTER = Plot(
    choices={
        "store": ("nuts and apples", "seeds and berries", "corn and carrots", "dried plums and nuts"),
        "play": ("dancing in the sun", "sleeping in the grass", "playing the fiddle", "splashing in the water"),
        "moral": (
            "there is a time for work and a time for play",
            "it is wise to think of tomorrow",
            "a friend in need is still a friend",
        ),
    },
    beats="""
{tale}

All summer long, {hero} worked hard. {He} gathered {store} for the winter.
When autumn came, {hero} began to gather {store}. "Winter will be long," {he} said.

{His} friend {friend}, {a fkind}, was {play} all day. "Come and play with me!" called {friend}.
Nearby lived {friend}, {a fkind} who was {play} every day. "Come and play with me!" {fhe} called.

"I have no time," said {hero}. "Soon it will be cold. You should gather some food too."
"Come and help me," said {hero}. "Then we will both have food in winter."

"Winter is far away," said {friend} and laughed.
{friend} only laughed. "I will do that tomorrow," {fhe} said. But {fhe} never did.

Then the snow came. It covered the fields and the trees, and there was nothing to eat.
One morning, the whole world was white. The wind was icy, and the river was frozen.

One cold evening, there was a knock at the door. It was {friend}, shaking with cold. "I am so hungry," {fhe} said.
{Hero} sat by the fire when {he} heard a weak knock. There stood {friend} in the snow. "Please help me," {fhe}
  whispered.

{Hero} [did not laugh at {fhim}|did not have to think for long]. "Come in and sit by the fire," {he} said. "I have
  enough for two."
{Hero} opened the door wide. "Come in, quickly!" {he} said, and {he} gave {fhim} a bowl of hot soup.

"You were right, and I was foolish," said {friend}. "[Thank you for being so kind.|How can I ever thank you?]"
{friend} ate and ate until {fhe} was warm again. "I should have listened to you," {fhe} said.
-

All winter long, they shared the food. {friend} told funny stories, and the long nights felt short.
{friend} stayed until spring. {Fhe} sang songs by the fire, and {hero} was never lonely.

The next summer, {friend} helped {hero} to gather {store}. And when the work was done, they played together.
When summer came again, they worked together in the morning and played together in the afternoon.
-

<close as friends>
""",
)

PLOTS = (QUARREL, BROKEN, NIGHT, CAKE, GARDEN, RACE, NEW_FRIEND, WINTER)
