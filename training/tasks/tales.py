"""Small stories and poems, by topic, and templates for any other topic."""


def _texts(text: str, joint: str) -> dict:
    """topic: text, from blocks "topic: first line ...", parted by empty lines."""
    found = {}
    for block in text.strip().split("\n\n"):
        topic, body = block.split(": ", 1)
        found[topic] = joint.join(line.strip() for line in body.splitlines())
    return found


STORIES = _texts("""
cat: A cat sat by the window and looked at the birds. She wanted to fly.
One night she dreamed that she had wings. In the morning she was happy to have a warm bed.

dog: A dog lost his ball in the river. He jumped in and swam after it.
The ball was fast, but the dog was faster. He came home wet and proud.

sea: A girl lived by the sea. Every day she told the sea a secret.
The sea told no one. That is why the sea is so deep.

moon: The moon was alone in the sky. She asked the stars to come closer.
The stars said: we are far, but we shine for you. Then the moon was not sad any more.

rain: It rained for three days. The children stayed in the house and built a ship of chairs.
When the sun came back, they had seen the whole world.

robot: A small robot worked in a garden. It did not know what flowers were for.
One day a child gave it a rose. The robot kept the rose, and now it knows.

winter: In winter an old man made a bird house. No bird came.
He put bread in it and waited. On the first day of spring the house was full of songs.

friend: Two friends had one apple. Each wanted to give it to the other.
So they cut it in half and planted the seeds. Now they have a tree full of apples.

tree: An old tree stood in a field. A storm came and broke the big branch.
A bird made its nest in the broken place. The tree was proud of it.

star: A little star fell from the sky into a lake. A fish asked: are you lost?
The star said: no, I only wanted to swim. At night it flew home.

coffee: A man drank coffee every morning and never said a word. One day the cup was empty.
He went to his neighbor and asked for some. They talked until the evening.

train: A train was always late. The people were angry, but the children waved.
The train went slow to see them. After that nobody was angry any more.

king: A king had a castle of gold, but he could not sleep. He asked a farmer for help.
The farmer gave him a day of work in the field. That night the king slept like a stone.

fish: A small fish wanted to see the land. A frog told it about trees and houses.
The fish listened all night. In the morning it said: I like my water best.

bird: A young bird was afraid to fly. Its mother said: just open your wings and look up.
It fell, it moved its wings, and it flew. Then it did not want to stop.

book: A boy found an old book without words. He did not know what to do with it.
So he wrote his own story in it. It was the best book in the house.

house: An empty house stood on a hill. The wind sang in it at night.
One day a family came and opened all the windows. The house was warm again.

boat: A boat lay on the beach and no one used it. A girl painted it blue.
She sailed to the island and back. Now the boat waits for her every day.

mountain: A mountain was proud to be so high. A small ant walked up, step by step.
At the top the ant said: now I am higher than you. The mountain laughed.

garden: A woman had a garden where nothing grew. She sang to it every morning.
In spring one flower came up. It was the most beautiful flower in the town.

computer: A computer could do a million sums, but it could not laugh. A child told it a joke.
The computer was quiet for a long time. Then it wrote: ha ha.

snow: In the night the first snow fell. In the morning the street was white and quiet.
A dog ran out and made the first steps. Soon all the children came.

wolf: A wolf was alone in the forest. He heard a song from far away.
He sang too, and other wolves came. Now they sing together every night.

bear: A bear looked for honey and found a bee with a broken wing. He carried the bee home.
The bees gave him a pot of honey. They have been friends since then.

clock: A clock in a tower was tired and stopped. The whole town stood still.
A girl climbed up and said thank you to the clock. It was glad and went on.

teacher: A teacher asked: what is the best number? One child said ten, one said a million.
A little girl said two, because then you are not alone. The teacher smiled.

queen: A queen wanted to hear the truth. All her people said nice words.
Only a child said: your hat is too big. The queen laughed and gave the child the hat.

lamp: A lamp was afraid of the dark. It shone all night and did not sleep.
The sun came and said: thank you for your work. Then the lamp could rest.

bee: A bee came home without honey. She had met so many flowers and only looked at them.
The others asked: was it beautiful? Yes, she said, and she showed them the way.

mouse: A mouse lived in a library. It ate the corners of the books.
One day it learned to read. From then on it only ate the empty pages.
""", " ")  # fmt: skip

POEMS = _texts("""
cat: The cat lies in the sun,
Her work is never done.
She sleeps all day, she wakes at night,
Her eyes are full of light.

sea: The sea is wide, the sea is blue,
It sings a song for me and you.
It comes and goes, it never ends,
The sea and sky are good old friends.

moon: The moon is high, the night is deep,
The town has closed its eyes to sleep.
Her silver light is on the wall,
She looks at us and loves us all.

rain: The rain falls down on street and tree,
It plays a little song for me.
It makes the fields and gardens green,
It makes the dusty windows clean.

robot: A robot stood inside a room,
It cleaned the floor without a broom.
It asked me once: what is a day?
I took its hand, we went to play.

winter: The winter comes, the days are cold,
The trees have lost their red and gold.
But in the house the fire is bright,
We read our books by its warm light.

friend: A friend is there when you are sad,
A friend is there when you are glad.
You need not call, you need not pay,
A friend will come and want to stay.

tree: A tree stands quiet in the field,
It is a roof, it is a shield.
A hundred birds live in its hair,
It gives us all its shade and air.

star: A little star looks down on me,
So far away across the sea.
It does not speak, it only shines,
And writes the night in silver lines.

coffee: A cup of coffee, black and hot,
I like the morning quite a lot.
I drink it slow, I look outside,
And all my dreams go out and hide.

train: The train goes fast, the train goes far,
It runs below the morning star.
The fields fly by, the towns are small,
I sit and look and see them all.

spring: The spring is here, the snow is gone,
The birds begin to sing at dawn.
A flower opens, white and small,
The sun is back and warms us all.

summer: The summer days are warm and long,
The bees are busy with their song.
We swim and play until the night,
The sky is full of golden light.

autumn: The leaves are red, the leaves are brown,
The wind has come and blows them down.
We walk on gold, we walk on red,
The year is tired and goes to bed.

night: The night is dark, the night is still,
The moon walks slowly up the hill.
So close your eyes and do not fear,
The morning sun is always near.

dog: My dog is old, my dog is slow,
He goes with me where I will go.
He has no money and no plan,
He loves as only dogs can.

bird: A bird sits in the morning tree,
It sings a song for you and me.
It has no house, it has no key,
It has the sky, and it is free.

flower: A flower grew beside the wall,
It was not big, it was not tall.
But every bee that flew that way
Came down to say a kind good day.

love: Love is a bird, love is a song,
It makes you weak, it makes you strong.
It has no lock, it has no door,
You give it all and have much more.

river: The river runs, it does not stay,
It takes the leaves and boats away.
It knows the hill, it knows the sea,
It sings of both of them to me.

mountain: The mountain stands so high and old,
Its head is white, its feet are cold.
It saw the kings, it saw them fall,
It does not say a word at all.

computer: My computer hums all day,
It has no time to go and play.
It counts so fast, it counts so far,
But never sees the evening star.

book: A book is small, a book is wide,
It holds a hundred lands inside.
You open it, you go away,
And come back home at end of day.

snow: The snow falls soft, the snow falls white,
It made a new world in the night.
No car, no bird, no sound, no call,
The quiet lies upon it all.

fire: The fire is red, the fire is warm,
It keeps us safe from cold and storm.
It dances high, it dances low,
And paints the wall with golden glow.
""", "\n")  # fmt: skip

# For any other topic. The topic is never a subject, so that one thing, many things and stuff all fit.
STORY_TEMPLATES = (
    "Once a girl looked for the {topic}. She asked the cat, the dog and the old man. At last she found the {topic} behind "
    "her house. She was very happy.",
    "A small robot wanted to learn about the {topic}. It read ten books and asked many people. In the end it wrote its own "
    "book about the {topic}.",
    "An old man told the children about the {topic} every evening. They closed their eyes and listened. At night they "
    "dreamed about the {topic}.",
    "A king dreamed about the {topic}. In the morning he told his people. They laughed, but the king never forgot the "
    "{topic}.",
    "Two friends talked about the {topic} all day. One said yes and the other said no. In the evening they laughed and "
    "drank tea.",
    "A painter made a picture of the {topic}. No one wanted to buy it. Then a child came and said: I love the {topic}. The "
    "painter gave the picture to the child.",
)
POEM_TEMPLATES = (
    "I think about the {topic} all day,\nThe thought will never go away.\nI look up high, I look down low,\nIt comes with me "
    "where I will go.",
    "I wrote a song about the {topic},\nI sang it to the sea.\nThe sea sang back, the wind sang too,\nAnd all three sang "
    "with me.",
    "I saw the {topic} in a dream,\nBeside a quiet silver stream.\nI woke, and it was early day,\nThe dream had softly gone "
    "away.",
    "Come sit with me beneath the tree,\nAnd tell about the {topic} to me.\nThe sun is low, the tea is hot,\nI like the two "
    "of us a lot.",
    "Some like the moon, some like the sun,\nSome like the {topic}, so much fun.\nI like them all, I like the day,\nAnd I "
    "like you, I want to say.",
    "One line is for the {topic}, my friend,\nOne line has neither start nor end.\nOne line is for the morning sun,\nAnd "
    "now my little poem is done.",
)

# What "a story" without a topic, and "another one", give.
FIRST_STORIES = ("robot", "cat", "moon", "tree", "sea", "clock")
FIRST_POEMS = ("sea", "moon", "rain", "friend", "night", "star")
