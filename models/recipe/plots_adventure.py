"""Plots that happen out of doors: things lost and found, animals in trouble, rivers, storms, treasure and wishes."""

from __future__ import annotations

from .story_words import Plot

THINGS = (
    "red ball",
    "blue kite",
    "silver bell",
    "wooden boat",
    "woolly hat",
    "yellow scarf",
    "little drum",
    "toy train",
    "shiny whistle",
    "green cap",
    "orange ribbon",
    "tiny lamp",
)
SPOTS = (
    "under a bush",
    "behind a big rock",
    "between the roots of an old tree",
    "in the tall grass",
    "inside a hollow log",
    "beside the path",
    "near the old bridge",
    "under a pile of leaves",
)

LOST = Plot(
    choices={
        "thing": THINGS,
        "spot": SPOTS,
        "moral": (
            "two pairs of eyes are better than one",
            "it is good to take care of the things you love",
            "there is always someone who will help",
        ),
    },
    beats="""
{open}

{Hero} had {a thing} that {he} loved very much.
{His} favorite thing in the whole world was {a thing}.
For {his} birthday, {his} {elder} had given {him} {a thing}, and {he} took it everywhere.

{day} {hero} took the {thing} and went {to_place} to play. The birds were singing, and {he} ran [here and there|up and
  down] until {he} was tired.
{day} {he} went {to_place} with the {thing}. {He} played there [for a long time|until the sun was low].
{day} {hero} went {to_place} to play with {his} {thing}. It was so much fun that {he} forgot the time.

But when it was time to go home, the {thing} was gone. "Oh no! Where is my {thing}?" cried {hero}.
Then {he} looked around. The {thing} was not there! "[Oh dear|Oh no]," said {hero}. "I have lost my {thing}."
When {he} wanted to go home, {he} could not find the {thing} anywhere.

{He} looked {spot2}, but it was not there. {He} looked {spot3}, but it was not there either.
{Hero} searched {spot2} and {spot3}, but {he} found only [leaves|stones|a sleepy snail].
{He} looked here and {he} looked there, but there was no {thing} to be seen.
-

<sad>
-

<meets helper> "I have lost my {thing}," said {hero}. "I have looked everywhere."
<meets helper> "My {thing} is gone, and I cannot find it," {he} said [in a small voice|softly].

"Do not worry," said the {helper}. "Let us look together." So they walked [slowly|] back the way {hero} had come.
"When I lose something, I walk back the way I came," said the {helper}. "Let us try it." So they walked back together.
The {helper} thought for a moment. "I saw something strange {spot} today," {hhe} said. "Come with me!"

And there, {spot}, was the {thing}! <joy>
"Look!" said the {helper}. There was the {thing}, {spot}. <joy>
They looked and looked, and at last {hero} saw something {spot}. It was the {thing}! <joy>

<thanks helper>
<thanks helper>
{Hero} had {a snack} in {his} bag, and {he} gave half of it to the {helper}. They ate and [laughed|talked] together.
-

<close>
That night, the {thing} lay next to {his} bed, and {hero} slept very well.
""",
)

STUCK = Plot(
    choices={
        "thing": ("red kite", "yellow balloon", "blue hat", "white paper bird", "green ball", "orange kite"),
        "climber": (
            {"climber": "squirrel", "climbs": "ran up the trunk as fast as the wind"},
            {"climber": "crow", "climbs": "spread {chis} wings and flew up to the branch"},
            {"climber": "little monkey", "climbs": "climbed from branch to branch"},
            {"climber": "tall giraffe", "climbs": "stretched {chis} long neck up to the branch"},
            {"climber": "small bird", "climbs": "flew up into the green leaves"},
            {"climber": "gray cat", "climbs": "climbed up the tree without a sound"},
        ),
        "climber pronoun": ({"che": "he", "chis": "his"}, {"che": "she", "chis": "her"}),
        "moral": (
            "everyone is good at something",
            "it is all right to ask for help",
            "small friends can do great things",
        ),
    },
    beats="""
{open}

{day} {hero} went {to_place} with {a thing}. The wind was [strong|blowing], and the {thing} danced in the air.
{day} {he} was playing {in_place} with {his} new {thing}. {His} {elder} had made it for {him}.
{day} {hero} took {his} {thing} {to_place}. It was windy, and the clouds were moving fast.

[Suddenly|All at once], the wind took the {thing} and carried it up into a tall tree. It was stuck!
Then a strong wind came. It pulled the {thing} out of {his} {hands} and blew it into the top of a tall tree.
But the wind was too strong. It lifted the {thing} higher and higher, until it was stuck in a tree.

{He} jumped as high as {he} could, but the branch was too high.
{Hero} tried to reach it with a long stick, but the stick was too short.
{He} shook the tree [again and again|with all {his} strength], but only [leaves|two leaves] came down.
{He} tried to climb the tree, but {he} slipped and sat down in the grass.
-

"[I will never get it back|What can I do]," {he} said sadly.
<sad>
-

{A climber} was resting nearby and had seen it all. "[May I help you|Can I help]?" asked the {climber}.
{A climber} was watching {him}. "Is that your {thing}?" asked the {climber}. "Yes," said {hero}, "but it is too high
  for me."
"Excuse me," said a voice behind {him}. It was {a climber}. "I think I can get your {thing}," {che} said.

"Oh yes, please!" said {hero}. "Could you really do that?"
"[Oh, please do|Please, will you try]," said {hero}. "You are my only hope."
-

The {climber} {climbs}. {Che} took hold of the {thing} and brought it down[ very gently|]. [It was not even torn.|]
The {climber} {climbs} and pulled the {thing} free. It came down right into the {hands} of {hero}.

<joy> "Thank you[ so much|]!" {he} said to the {climber}.
"You are [wonderful|so clever]!" cried {hero}. "Thank you!" The {climber} [smiled|looked very proud].

{He} shared {a snack} with the {climber}, and they played together until [evening|the sun went down].
Then {hero} let the {climber} play with the {thing} too. They [laughed|had fun] all [day|afternoon] long.
The {climber} promised to come and play again the next day.
-

<close>
""",
)

LOST_BABY = Plot(
    choices={
        "baby": (
            {"baby": "duckling", "parent": "mother duck", "call": "Quack, quack", "where": "pond"},
            {"baby": "lamb", "parent": "mother sheep", "call": "Baa, baa", "where": "green field"},
            {"baby": "chick", "parent": "mother hen", "call": "Cluck, cluck", "where": "farmyard"},
            {"baby": "calf", "parent": "mother cow", "call": "Moo, moo", "where": "old barn"},
            {"baby": "baby goat", "parent": "mother goat", "call": "Maa, maa", "where": "stone wall"},
            {"baby": "baby owl", "parent": "mother owl", "call": "Hoo, hoo", "where": "tall pine tree"},
        ),
        "moral": (
            "a kind heart always finds a way",
            "it feels good to help someone who is small",
            "home is where someone is waiting for you",
        ),
    },
    beats="""
{open}

{day} {hero} was walking {in_place} when {he} heard a [small|tiny|sad] sound.
{day} {he} went {to_place} to {hobby}. [On the way|There] {he} heard someone crying.
{day} {hero} went for a walk. When {he} came {to_place}, {he} heard a very quiet cry.

{He} looked {spot2}, and there sat {a baby}. It was all alone.
{He} followed the sound and found {a baby} {spot2}. It was shaking[ with fear|].
{A baby} was sitting {spot2}. It looked [cold and afraid|lost and afraid].

"Do not be afraid," said {hero}. "Are you lost?" The {baby} nodded. "I cannot find my mother," it said.
"What is wrong, little one?" asked {hero}. "I ran after a butterfly, and now I am lost," said the {baby}.
"Who are you?" asked {hero} [softly|kindly]. "I am lost," said the {baby}. "I want to go home to my mother."

"I will help you," said {hero}. {He} [picked up|gently lifted] the {baby} and [set off|began to walk].
"Come with me," said {hero}. "We will find her together." [And off they went.|So they walked side by side.]

First they came to {a helper}. "Have you seen {a parent}?" asked {hero}. "No," said the {helper}, "but I heard
  something near the {where}."
On the way they met {a helper}. "We are looking for {a parent}," said {hero}. "Go to the {where}," said the {helper}.
  "I saw her there this morning."
They asked {a helper} for help. "Listen carefully," said the {helper}. "A mother always calls for her child."
-

They walked and walked, and the {baby} grew tired. So {hero} sang a little song for it.
They went over a [hill|bridge] and along a [stream|stone wall]. "Are we there yet?" asked the {baby}. "Almost," said
  {hero}.
-

Then they heard a voice from the {where}. "{call}!" it called. "That is my mother!" cried the {baby}.
At last they came to the {where}. "{call}!" called someone. "Mama!" cried the {baby}, and it ran as fast as it could.

The {parent} [hugged|kissed] her little one. "Thank you for bringing my child home," she said to {hero}.
The {parent} was so happy that she cried. "You are a good friend," she told {hero}.

<close>
{Hero} waved goodbye and walked home. {He} felt [warm inside|very happy], and {he} knew that {moral}.
""",
)

WISH = Plot(
    choices={
        "magic": ("shiny stone", "silver feather", "golden shell", "tiny bottle", "blue button", "glass marble"),
        "trouble": (
            {
                "trouble": "My garden is dry, and all my flowers are dying",
                "wish": "rain for the garden",
                "result": "soft rain began to fall, and the flowers lifted their heads",
            },
            {
                "trouble": "My cart is broken, and I cannot bring my apples home",
                "wish": "a new cart",
                "result": "a strong new cart stood on the path, full of red apples",
            },
            {
                "trouble": "The storm blew away my house, and I have nowhere to sleep",
                "wish": "a warm house",
                "result": "a little house with a red roof stood under the trees",
            },
            {
                "trouble": "I hurt my leg, and I cannot walk home",
                "wish": "the leg to be well",
                "result": "the pain was gone, as if it had never been there",
            },
            {
                "trouble": "I have forgotten my song, and I cannot sing anymore",
                "wish": "the lost song to come back",
                "result": "a clear and lovely song filled the air",
            },
        ),
        "dream": ("a big castle", "a mountain of candy", "a flying horse", "a golden crown", "a hundred toys"),
        "moral": (
            "the best wish is one that helps a friend",
            "giving makes you happier than getting",
            "a kind heart is the greatest magic of all",
        ),
    },
    beats="""
{open}

{day} {hero} found {a magic} {spot2}. When {he} [picked it up|touched it], it began to [glow|shine].
{day} {he} was walking {in_place} when {he} saw something bright {spot2}. It was {a magic}.
{day} {hero} went {to_place}. There, {spot2}, lay {a magic} that [sparkled in the sun|shone like a star].

"I am magic," said a tiny voice. "You may make one wish, but only one."
Then the {magic} spoke! "You may have one wish," it said. "[Think well|Choose well]."
"Hello," said the {magic}. "I can give you one wish. What would you like?"

{Hero} could hardly believe it. "I could wish for {dream}!" {he} thought.
{Hero} thought about it for a long time. Maybe {he} would wish for {dream}.
"One wish!" said {hero}. "Shall I wish for {dream}?" {He} [did not know|was not sure].

[Just then|At that moment], {he} heard someone crying. It was {friend}, {a fkind} {he} knew well.
On the way home, {he} met {friend} the {fkind}, who was sitting {spot3} and looked very sad.
But then {hero} saw {his} friend {friend}, {a fkind}, sitting {spot3} with tears in {fhis} eyes.

"What is wrong, {friend}?" asked {hero}. "{trouble}," said {friend}.
"{trouble}," said {friend}. "I do not know what to do."

{Hero} looked at the {magic}. {He} thought of {dream}, and then {he} looked at {friend}.
{Hero} held the {magic} in {his} {hands}. Now {he} knew what to wish for.
"[Do not cry|Do not worry]," said {hero}. "I know what to do."
-

{He} closed {his} eyes and wished for {wish}. [At once|In a moment], {result}.
"I wish for {wish}," said {hero}. There was a flash of light, and {result}.

"[Oh|How wonderful]! Did you do that for me?" asked {friend}. "Yes," said {hero}. "You are my friend."
{friend} could not believe {fhis} eyes. "Thank you, {hero}!" {fhe} [cried|said]. "You are the best friend in the world."
-

The {magic} did not shine anymore, but {hero} did not mind. <joy>
Now the {magic} was only {a magic}, but {hero} kept it [for a long time|in {his} pocket].
-

<close with friend>
""",
)

HURT_BIRD = Plot(
    choices={
        "bird": ("robin", "sparrow", "blackbird", "swallow", "white dove", "blue bird"),
        "bed": ("a box with soft wool", "an old hat full of hay", "a basket with a warm cloth", "a nest of dry leaves"),
        "food": ("seeds and water", "bread and water", "berries and seeds", "small worms and water"),
        "moral": (
            "if you love someone, you let them be free",
            "good things take time",
            "a little care can work wonders",
        ),
    },
    beats="""
{open}

{day} {hero} found {a bird} {spot2}. Its wing was hurt, and it could not fly.
{day} {he} was {in_place} when {he} saw {a bird} lying {spot2}. "Oh, you poor thing!" said {hero}.
{day} {hero} heard a soft cry. {Spot}, {he} found {a bird} with a hurt wing.

"Please do not hurt me," said the {bird}. "I will never hurt you," said {hero}. "I want to help."
The {bird} was [afraid|cold] and shaking. "Do not be afraid," said {hero} [softly|gently]. "I will take care of you."
-

Very carefully, {he} carried the {bird} home and made a bed for it in {bed}.
{He} took the {bird} home in {his} {hands}. {His} {elder} helped {him} to make a bed in {bed}.

"Will it fly again?" asked {hero}. "I think so," said {his} {elder}, "but it will take time."
"It needs rest and good food," said {his} {elder}. "Can you take care of it?" "Yes, I can," said {hero}.
-

Every [day|morning], {hero} gave the {bird} {food}. In the evening, {he} told it stories.
Day after day, {hero} brought {food}. The {bird} ate a little more each time.

After a week, the {bird} could hop. After two weeks, it moved its wing.
At first, the {bird} only slept. But soon it began to sing, and the whole house was full of music.
Slowly, the wing grew strong again. [One day|One morning], the {bird} flew once around the room.
-

Then [the day came|it was time] to say goodbye. {Hero} felt sad, but {he} opened the window wide.
"It wants to go back to the sky," said {his} {elder}. {Hero} was sad, but {he} knew that it was true.
{Hero} did not want to say goodbye. But {he} saw the {bird} look at the sky, and {he} opened the window.

"Thank you, {hero}," sang the {bird}. Then it flew up, higher and higher, into the blue sky.
The {bird} sat on {his} {hand} one last time. Then it spread its wings and flew away.

But the next [morning|day], {hero} heard a song outside the window. The {bird} had come back to visit {him}!
The next spring, {a bird} came to the window and sang. {Hero} knew at once who it was.
And every morning after that, the {bird} came and sang for {hero}.

{Hero} smiled and listened. {He} had learned that {moral}.
"I am proud of you," said {his} {elder}. "You have learned that {moral}."
And so {hero} learned that {moral}. [The end.|]
""",
)

RIVER = Plot(
    choices={
        "goal": ("sweet berries", "red apples", "yellow flowers", "ripe plums", "big nuts"),
        "broken": (
            "the storm had broken the bridge",
            "the bridge was gone",
            "there was no bridge anymore",
        ),
        "way": (
            {"idea": "There is a long log on the grass", "build": "pushed the log to the water and laid it across"},
            {"idea": "We can tie some branches together", "build": "tied the branches together and made a little raft"},
            {"idea": "Here are many flat stones", "build": "put one stone after another into the water"},
        ),
        "moral": (
            "together you can do what you cannot do alone",
            "every problem looks smaller when you share it",
            "two friends are stronger than one",
        ),
    },
    beats="""
{open}

{day} {he} wanted to pick {goal} on the other side of the river. But {broken}.
{day} {hero} took a basket and went to the river. On the other side grew {goal}. But when {he} came there, {broken}.
{day} {his} {elder} said, "Could you bring me some {goal}? They grow across the river." {Hero} set off at once, but
  {broken}.

The water was [deep|fast] and cold. {Hero} could not swim across.
{Hero} looked at the [deep|fast] water. {He} was afraid to go in.
-

{He} tried to jump, but {he} landed in the mud. [Splash!|]
{He} tried to move a big log alone, but it was too heavy.
{He} threw a branch into the water, but the river carried it away.
-

On the bank sat {friend}, {a fkind}. "I want to cross the river too," {fhe} said, "but I cannot do it alone."
Then {he} met {a fkind} named {friend}. "Do you want to cross the river too?" asked {friend}. "Yes," said {hero},
  "but I do not know how."

They thought and thought. "I have an idea," said {hero}. "{idea}."
"Let us think together," said {friend}. After a while, {fhe} said, "I know! {idea}."
"{idea}," said {hero}. "[Maybe we can use that|Will you help me]?" "[Of course|Yes]," said {friend}.

So they worked [side by side|together] all morning. They {build}.
It was hard work, but they did not give up. [At last|Together], they {build}.
{Hero} and {friend} {build}. [It was hard work, but it was fun too.|]

Step by step, they went to the other side. "We did it!" cried {friend}.
Very carefully, they crossed the river. They did not even get wet. "[Hooray|We did it]!" they cried.

There they found so many {goal} that they filled a whole basket. They shared everything.
On the other side, they [picked|found] {goal} for both of them[ and for {his} {elder} too|].

<close with friend>
""",
)

STORM = Plot(
    choices={
        "shelter": ("a hollow tree", "a dry cave", "an old hut", "a big red mushroom", "an empty barn"),
        "guest": ("wet cat", "tired fox", "small mouse", "cold hen", "muddy dog"),
        "guest2": ("big bear", "tall deer", "old goat", "large goose", "shy badger"),
        "moral": (
            "there is always room for one more",
            "sharing makes a small place big",
            "friends keep each other warm",
        ),
    },
    beats="""
{open}

{day} {hero} was {in_place} when the sky grew dark. [Soon|Then] it began to rain.
{day} {he} went {to_place} to {hobby}. But dark clouds came, and the rain began to fall.
{day} {hero} was on the way home when a storm came. The wind blew, and the thunder rolled.

{He} ran as fast as {he} could until {he} found {a shelter}. It was [quiet|warm] inside.
Luckily, {he} saw {a shelter} and ran inside. There {he} was safe from the rain.

After a while, {a guest} looked in. "May I come in?" asked the {guest}. "I am so cold." "Of course," said {hero}.
Then {he} heard a knock. It was {a guest}. "Please let me in," said the {guest}. "Come in," said {hero}. "There is
  room for two."

[Soon|A little later], {a guest2} came. "Is there room for me?" asked the {guest2}.
Next came {a guest2}, dripping with rain. "May I come in too?" the {guest2} asked.

"There is no more room," said the {guest}. "[You are too big|We will all be crushed]."
The {guest} looked at the {guest2} and shook its head. "It is too small for three," said the {guest}.

But {hero} said, "It is raining hard. If we all move a little, there will be room." And so it was.
"We cannot leave anyone out in the rain," said {hero}. "Let us all sit close together." [And it worked.|]

They sat close together, and soon they were all warm. {Hero} told a story, and the {guest2} sang a song.
The {guest2} was big and warm, and nobody was cold anymore. "I am glad you came in," said the {guest}.
{Hero} had {a snack} in {his} bag, and they shared it. The thunder did not sound so bad anymore.
-

At last the rain stopped. A rainbow stood over the [forest|hills|fields].
When the storm was over, they all went outside. "Look, a rainbow!" cried {hero}.

"Thank you, {hero}," said the {guest} and the {guest2}. "[We will not forget this|You are a good friend]."
They said goodbye like old friends. [They promised to meet again.|]
-

<close>
""",
)

TREASURE = Plot(
    choices={
        "found_in": ("an old book", "a bottle", "a dusty box", "the pocket of an old coat"),
        "mark": ("a tall stone", "a crooked tree", "an old well", "a broken gate", "a round rock"),
        "inside": (
            {
                "inside": "seeds of every kind",
                "use": "They planted the seeds, and in summer there were flowers everywhere",
            },
            {"inside": "old story books", "use": "They read the stories to each other all summer long"},
            {"inside": "gold coins", "use": "They gave the coins to build a new school for all the children"},
            {"inside": "little bells", "use": "They hung the bells in the trees, and the wind made music with them"},
            {"inside": "toys from long ago", "use": "They mended the toys and gave them to the little ones"},
        ),
        "moral": (
            "the best treasure is one that you share",
            "a good friend is the greatest treasure",
            "an adventure is better with a friend",
        ),
    },
    beats="""
{open}

{day} {hero} found a map in {found_in}. It showed a path and a red cross near {mark}.
{day} {he} looked into {found_in} and saw a map. "A treasure map!" {he} cried. There was a cross near {mark}.

{He} ran to {his} friend {friend}, {a fkind}. "Will you come with me?" {he} asked. "Yes!" said {friend}.
{He} showed it to {friend}, {a fkind} who lived nearby. "Let us find the treasure," said {friend}. "I will bring
  {a snack}."

They walked over the bridge and through the [forest|tall grass|fields]. {friend} held the map.
First they crossed a stream. Then they climbed a hill. [It was a long way.|The sun was hot.]
-

But soon the path was gone. "We are lost," said {friend}[ in a small voice|].
Then they came to a dark part of the forest. "I am a little afraid," said {friend}.
But then the wind took the map and blew it away. "Oh no!" cried {friend}. "Now we will never find it."

"Do not worry," said {hero}. "I can see {mark} over there!"
"Take my {hand}," said {hero}. "We will go together." And after a few steps, they saw {mark}.
{Hero} climbed on a rock and looked around. "There!" {he} said. "I can see {mark}."

They began to dig. They dug and dug until they hit something hard. It was a wooden box.
Under the grass, they found a box. It was very old, and it took both of them to open it.

Inside were {inside}! {use}.
"What is inside?" asked {friend}. {Hero} lifted the lid. The box was full of {inside}! {use}.

<close with friend>
""",
)

PLOTS = (LOST, STUCK, LOST_BABY, WISH, HURT_BIRD, RIVER, STORM, TREASURE)
