"""A broader plain-English domain: definitions, ds4 itself, stories, poems, small translations, word and number puzzles,
manners. `any_turn` gives one turn, `session` a short run of turns that belong together."""

import random

import words as w

from . import definitions, phrasebook, tales
from .base import Turn, casual, listing, upper_first

UNKNOWN = "I do not know that. I am a very small model."
LOST = "I did not understand that. Can you say it in other words?"


# --- definitions ---------------------------------------------------------------------------------------------------

_DEFINE = (
    "What is {a}?", "what is {a}", "What is {a}?", "What's {a}?", "what's {a}?", "Explain {a}.", "explain {b}", "Define {b}.",
    "define {b}", "Tell me about {a}.", "tell me about {b}", "Do you know what {a} is?", "What does {b} mean?",
    "what does {b} mean", "what is {b}?", "what is {b}", "Can you explain {a}?", "Please explain {a}.", "Explain {a} to me.",
    "Explain what {a} is.", "Tell me what {a} is.", "What do you know about {b}?", "what exactly is {a}?", "What is {a} again?",
    "I do not know what {a} is.", "Explain {a} in simple words.", "Give me a definition of {b}.", "definition of {b}",
    "What is the meaning of {b}?", "so what is {a}", "Describe {a}.", "describe {b}",
)  # fmt: skip
_ARTICLES = ("a ", "an ", "the ")
# Names that people type alone, with a question mark.
_ALONE = ("mmap", "a GPU", "a CPU", "RAM", "GGUF", "a token", "a prompt", "attention", "Rust", "git", "JSON", "SSE", "an API", "quantization")
# "What is the weather?" asks for the weather of today.
_OTHER_SENSE = {"the weather", "time"}


def bare(name: str) -> str:
    """The name without its article."""
    for article in _ARTICLES:
        if name.startswith(article):
            return name[len(article) :]
    return name


_DEFINED = {bare(name) for names, _ in definitions.COMPUTING + definitions.THINGS for name in names}


def definition(rng: random.Random, split: str) -> Turn:
    """What something is; sometimes a made-up thing, which nobody knows."""
    style = rng.random()
    made_up = w.nonsense(rng, split)
    if style < 0.05 and made_up not in _DEFINED:
        name, answer = "a " + made_up, UNKNOWN
        think = f"I do not know the word {bare(name)}."
    else:
        names, answer = rng.choice(definitions.COMPUTING if style < 0.57 else definitions.THINGS)
        name = names[0] if rng.random() < 0.7 else rng.choice(names)
        think = f"The user asks for a definition of {bare(name)}."
    text = rng.choice(_DEFINE) if name not in _OTHER_SENSE else "What does {b} mean?"
    if name in _ALONE and rng.random() < 0.2:
        text = "{b}?"
    text = text.format(a=name, b=bare(name))
    text = text.lower() if rng.random() < 0.12 else casual(rng, text)
    return Turn(text, answer, think, ["do not know"] if answer is UNKNOWN else [answer])


def stands_for(rng: random.Random, split: str) -> Turn:
    """What the letters of a short name stand for."""
    names, words = rng.choice(definitions.LETTERS)
    text = rng.choice(("What does {} stand for?", "what does {} stand for", "{} stands for what?", "What is {} short for?",
                       "What do the letters {} stand for?", "what is the long form of {}?"))  # fmt: skip
    text = text.format(names[0])
    answer = f"{names[0]} stands for {words}."
    return Turn(text.lower() if rng.random() < 0.1 else casual(rng, text), answer, f"The letters {names[0]}.", [words])


def about_ds4(rng: random.Random, split: str) -> Turn:
    """A question about ds4, the real model or the miniature."""
    wordings, answer, think = rng.choice(definitions.DS4)
    return Turn(casual(rng, rng.choice(wordings)), answer, think, [answer])


# --- stories and poems ---------------------------------------------------------------------------------------------

_STORY_ASKS = (
    "Tell me a story about {}.", "tell me a story about {}", "Write a story about {}.", "A story about {}, please.",
    "Can you tell a story about {}?", "story about {}", "Write a short story about {}.", "I want a story about {}.",
    "short story about {} please", "Make up a story about {}.", "Tell a story of {}.", "Please tell me a short story about {}.",
)  # fmt: skip
_POEM_ASKS = (
    "Write a poem about {}.", "write a poem about {}", "A poem about {}, please.", "Can you write a poem about {}?",
    "poem about {}", "Write a short poem about {}.", "I want a poem about {}.", "Make a poem about {}.", "a rhyme about {}",
    "Please write me a poem about {}.", "Give me four lines about {}.", "write me a short poem about {} please",
)  # fmt: skip
_ANY_STORY = (
    "Tell me a story.", "tell me a story", "a story please", "Short story please.", "Write a short story.", "Can you tell a story?",
    "I want a story.", "Do you know a story?", "story", "Tell me a bedtime story.", "write a story", "Tell a story.",
)  # fmt: skip
_ANY_POEM = (
    "Write a poem.", "write a poem", "a poem please", "Tell me a poem.", "Can you write a poem?", "Write me a poem.", "poem",
    "I want a poem.", "Do you know a poem?", "make a poem", "Short poem please.", "Can you rhyme?",
)  # fmt: skip
_ANOTHER = ("another one", "Another one.", "Another one, please.", "one more", "One more, please.", "again", "Tell me another one.",
            "more", "a different one please", "Do you have another one?")  # fmt: skip
_THANKS = ("Thanks!", "thank you", "Thank you!", "Thank you very much!", "thanks", "great, thanks")
_PRAISE = ("That was good.", "I like it.", "Nice one.", "Beautiful.", "that was nice", "I like that one.", "very nice")
# Topics of the world, with the plain forms people use for them.
_FREE = {"winter", "spring", "summer", "autumn", "love", "rain", "snow", "coffee", "fire"}
_OPEN_TOPICS = ("music", "books", "my dog", "my cat", "happiness", "the wind", "summer rain", "a small house", "my mother",
                "my father", "the city", "time", "a dragon", "a witch", "a princess", "a pirate", "a ghost", "cats", "dogs")  # fmt: skip


def _named(rng: random.Random, topic: str) -> str:
    """A topic as people write it: "the moon", "a cat", "winter"."""
    if topic in _FREE:
        return topic if rng.random() < 0.7 else "the " + topic
    if topic in ("sea", "moon"):
        return "the " + topic if rng.random() < 0.8 else topic
    if topic == "night":
        return rng.choice(("the night", "night", "a night"))
    return rng.choice((w.article(topic), w.article(topic), "the " + topic, topic))


def _free_topic(rng: random.Random, split: str, known: dict) -> str:
    """A topic without its own text: a noun of the part, two words or a made-up word."""
    while True:
        style = rng.random()
        if style < 0.45:
            topic = w.article(rng.choice(w.SPLIT_NOUNS[split]))
        elif style < 0.65:
            topic = rng.choice(("a ", "the ")) + w.pair(rng, split)
            topic = topic if topic[2] not in "aeio" or topic[0] == "t" else "an " + topic[2:]
        elif style < 0.8:
            topic = rng.choice(("a ", "the ")) + w.nonsense(rng, split)
        elif style < 0.9:
            topic = w.article(rng.choice(w.ANIMALS)) if rng.random() < 0.6 else rng.choice(w.FOODS)
        else:
            topic = rng.choice(_OPEN_TOPICS)
        if bare(topic) not in known:
            return topic


def told(rng: random.Random, split: str) -> Turn:
    """A story or a poem about a topic."""
    story = rng.random() < 0.5
    known, asks = (tales.STORIES, _STORY_ASKS) if story else (tales.POEMS, _POEM_ASKS)
    kind = "story" if story else "poem"
    if rng.random() < 0.6:
        topic = rng.choice(list(known))
        answer = known[topic]
        want = [answer.split("\n")[0].split(".")[0]]
        text = rng.choice(asks).format(_named(rng, topic))
    else:
        shown = _free_topic(rng, split, known)
        topic = bare(shown.removeprefix("my "))
        answer = rng.choice(tales.STORY_TEMPLATES if story else tales.POEM_TEMPLATES).format(topic=topic)
        want = ["the " + topic, topic]  # two, so that no tone shortens the text to the topic
        text = rng.choice(asks).format(shown)
    return Turn(casual(rng, text), answer, f"The user wants a {kind} about the {topic}.", want)


def told_freely(rng: random.Random, split: str) -> list:
    """A story or a poem without a topic, then perhaps other ones and thanks."""
    story = rng.random() < 0.5
    kind, asks = ("story", _ANY_STORY) if story else ("poem", _ANY_POEM)
    known, first = (tales.STORIES, tales.FIRST_STORIES) if story else (tales.POEMS, tales.FIRST_POEMS)
    topics = rng.sample(first, rng.choice((1, 2, 2, 3)))
    turns = [Turn(casual(rng, rng.choice(asks)), known[topics[0]], f"The user wants a {kind}. I take the {topics[0]}.", [])]
    for topic in topics[1:]:
        turns.append(Turn(rng.choice(_ANOTHER), known[topic], f"The user wants another {kind}. I take the {topic}.", []))
    return turns + _close(rng, 0.3)


def told_again(rng: random.Random, split: str) -> list:
    """A story or a poem about a topic, then another one and thanks."""
    turns = [told(rng, split)]
    story = "story" in turns[0].think
    known, first = (tales.STORIES, tales.FIRST_STORIES) if story else (tales.POEMS, tales.FIRST_POEMS)
    topic = rng.choice([name for name in first if name not in turns[0].think])
    kind = "story" if story else "poem"
    turns.append(Turn(rng.choice(_ANOTHER), known[topic], f"The user wants another {kind}. I take the {topic}.", []))
    return turns + _close(rng, 0.3)


def _close(rng: random.Random, share: float) -> list:
    """Sometimes a closing word of thanks or praise."""
    style = rng.random()
    if style < share * 0.6:
        return [Turn(rng.choice(_THANKS), "You are welcome.", "The user thanks me.", ["You are welcome."])]
    if style < share:
        return [Turn(rng.choice(_PRAISE), "I am glad that you like it.", "The user likes it.", ["I am glad that you like it."])]
    return []


# --- other languages -----------------------------------------------------------------------------------------------

_INTO = (
    "How do you say {e} in {l}?", "how do you say {e} in {l}", "Translate {e} to {l}.", "translate {e} to {l}", "What is {e} in {l}?",
    "what is {e} in {l}", "Translate {e} into {l}.", "How do I say {e} in {l}?",
    "Say {e} in {l}.", "What is the {l} word for {e}?", "how to say {e} in {l}", "Tell me the {l} word for {e}.",
)  # fmt: skip
_BACK = (
    "What does {f} mean in {l}?", "what does {f} mean in {l}", "What is the {l} word {f} in English?", "what is {l} {f} in English?",
    "Translate the {l} word {f} to English.", "What is the meaning of {f} in {l}?", "translate {f} from {l} to English",
)  # fmt: skip
_FAR = "Japanese Russian Chinese Greek Polish Turkish Dutch Korean Latin".split()
_WORDS, _PHRASES = list(phrasebook.WORDS), list(phrasebook.PHRASES)
_ENGLISH = set(_WORDS) | set(_PHRASES)


def translation(rng: random.Random, split: str) -> Turn:
    """A word or a phrase into or from a language; unknown words and languages are said to be unknown."""
    english = rng.choice(_WORDS) if rng.random() < 0.8 else rng.choice(_PHRASES)
    place = rng.randrange(4)
    language = phrasebook.LANGUAGES[place]
    foreign = (phrasebook.WORDS.get(english) or phrasebook.PHRASES[english])[place]
    style = rng.random()
    if style < 0.08:
        if rng.random() < 0.5:
            language = rng.choice(_FAR)
        else:
            english = rng.choice([noun for noun in w.SPLIT_NOUNS[split] if noun not in _ENGLISH])
        text = rng.choice(_INTO).format(e=english, l=language)
        return Turn(casual(rng, text), UNKNOWN, f"I do not know {english} in {language}.", ["do not know"])
    if style < 0.75 or foreign.lower() in _ENGLISH:
        text = rng.choice(_INTO).format(e=english, l=language)
        answer = f"In {language}, {english} is {foreign}."
        return Turn(casual(rng, text), answer, f"The user wants {english} in {language}.", [foreign])
    text = rng.choice(_BACK).format(f=foreign, l=language)
    answer = f"In {language}, {foreign} means {english}."
    return Turn(casual(rng, text), answer, f"The word {foreign} is {language}. In English it is {english}.", [english])


# --- words ---------------------------------------------------------------------------------------------------------

_SHORT_WORDS = "cat dog sun box red key map yes no stop go open name file fire".split()
RHYMES = [
    tuple(pair.split(":"))
    for pair in """cat:hat dog:fog sun:run moon:spoon star:car tree:bee house:mouse day:way night:light book:look cake:lake
ball:wall bell:well bed:red blue:true bread:head boat:coat king:ring rain:train snow:slow sea:key sky:fly fish:dish
fire:wire gold:cold stone:bone rose:nose road:toad room:broom rock:clock shoe:two school:pool ship:trip song:long
sand:hand seed:need tail:mail tall:small time:lime town:brown year:near chair:bear door:floor four:more
five:alive ten:pen nine:wine good:wood green:queen hill:mill ice:mice jump:pump lamp:stamp man:pan nest:best
page:stage pink:drink right:white sad:glad tea:free""".split()
]
# Pairs that the knowledge base does not hold.
ANTONYMS = [
    tuple(pair.split(":"))
    for pair in """above:below before:after more:less many:few heavy:light sweet:bitter
brave:afraid kind:cruel smart:stupid always:never inside:outside front:back top:bottom north:south
east:west summer:winter friend:enemy war:peace life:death question:answer start:stop come:go give:take
remember:forget laugh:cry ask:answer rise:fall build:destroy same:different public:private
ancient:modern cheap:expensive sick:healthy hungry:full alive:dead single:double""".split()
]
CATEGORIES = {
    "animal": "dog cat horse cow lion tiger wolf bear monkey elephant snake frog spider shark".split(),
    "flower": "rose tulip lily".split(),
    "fruit": "apple banana pear cherry".split(),
    "color": "red blue green yellow purple pink".split(),
    "tool": "hammer saw ladder brush knife".split(),
    "drink": "tea milk coffee water wine".split(),
    "day": w.DAYS,
    "month": [month for month in w.MONTHS if month not in ("March", "May", "April", "June", "August")],
    "number": "two three seven eight nine ten".split(),
    "language": "French Spanish German Italian English".split(),
    "programming language": "Rust Python Java JavaScript".split(),
    "country": "France Germany Italy Spain Japan Egypt Norway Peru".split(),
    "city": "Paris London Berlin Rome Madrid Vienna Prague Tokyo".split(),
    "instrument": "piano guitar drum".split(),
    "body part": "hand foot nose ear arm leg".split(),
    "vehicle": "car bus train truck ship boat plane".split(),
    "vegetable": "carrot onion potato".split(),
    "piece of clothing": "shirt coat hat shoe".split(),
}
_COUNTED = {"animal", "flower", "fruit", "tool", "instrument", "vehicle", "vegetable", "piece of clothing", "body part"}


def _one(item: str, kind: str) -> str:
    return ("an " + item if item in ("onion", "apple", "ear", "arm", "elephant") else "a " + item) if kind in _COUNTED else item


def rhyme(rng: random.Random, split: str) -> Turn:
    """A word that rhymes."""
    a, b = rng.choice(RHYMES)
    text = rng.choice(("What rhymes with {}?", "what rhymes with {}", "Tell me a rhyme for {}.", "a word that rhymes with {}",
                       "Which word rhymes with {}?", "give me a rhyme for {}", "Find a rhyme for {}."))  # fmt: skip
    return Turn(casual(rng, text.format(a)), f"The word {a} rhymes with {b}.", f"A rhyme for {a} is {b}.", [b])


def antonym(rng: random.Random, split: str) -> Turn:
    """The opposite of a word."""
    a, b = rng.choice(ANTONYMS)
    if rng.random() < 0.5 and b not in ("light", "full", "answer", "stop", "leave", "fall"):
        a, b = b, a
    text = rng.choice(("What is the opposite of {}?", "opposite of {}?", "what is the opposite of {}", "Tell me the opposite of {}.", "what is the antonym of {}?"))  # fmt: skip
    return Turn(text.format(a), f"The opposite of {a} is {b}.", f"It is {b}.", [b])


def category(rng: random.Random, split: str) -> Turn:
    """Is it one kind of thing or another?"""
    kind, other = rng.sample(list(CATEGORIES), 2)
    item = rng.choice(CATEGORIES[kind])
    named = _one(item, kind)
    answer, think = f"It is {w.article(kind)}.", f"I know that {named} is {w.article(kind)}."
    if rng.random() < 0.3:
        text = rng.choice(("What kind of thing is {}?", "what sort of thing is {}", "What kind of thing is {}")).format(named)
        return Turn(text, answer, think, [kind])
    a, b = (kind, other) if rng.random() < 0.5 else (other, kind)
    text = rng.choice(("Is {n} {a} or {b}?", "is {n} {a} or {b}", "What is {n}, {a} or {b}?"))
    return Turn(text.format(n=named, a=w.article(a), b=w.article(b)), answer, think, [kind])


def odd_one(rng: random.Random, split: str) -> Turn:
    """Which word does not belong to the others?"""
    kinds = [kind for kind in CATEGORIES if kind not in ("tool", "body part", "programming language")]
    kind, other = rng.sample(kinds, 2)
    items = rng.sample(CATEGORIES[kind], 3)
    strange = rng.choice(CATEGORIES[other])
    items.insert(rng.randint(0, 3), strange)
    text = rng.choice(("Which word does not fit: {}?", "Odd one out: {}", "which one does not belong: {}?", "What does not fit? {}",
                       "Find the odd one out: {}."))  # fmt: skip
    think = f"The word {strange} is for {w.article(other)}. The others: {kind}."
    return Turn(text.format(", ".join(items)), f"The word {strange} does not fit.", think, [strange])


def letters(rng: random.Random, split: str) -> Turn:
    """Upper and lower case of short texts, the longer word, neighbours in the alphabet."""
    style = rng.random()
    if style < 0.5:
        shown = " ".join(rng.sample(_SHORT_WORDS, rng.choice((1, 1, 2, 2, 3))))
        up = rng.random() < 0.6
        case = rng.choice(("upper case", "capital letters") if up else ("lower case", "small letters"))
        given, found = (shown, shown.upper()) if up else (shown.upper(), shown)
        text = rng.choice(("Write {t} in {c}.", "write {t} in {c}", "Put {t} in {c}.", "Write the words {t} in {c}."))
        return Turn(text.format(t=given, c=case), found, f"The user wants {case}.", [found], "exact")
    if style < 0.8:
        while True:
            a, b = rng.sample(w.NOUNS, 2)
            if len(a) != len(b):
                break
        longer = rng.random() < 0.6
        word = "longer" if longer else "shorter"
        found = max(a, b, key=len) if longer else min(a, b, key=len)
        text = rng.choice(("Which word is {w}, {a} or {b}?", "Which is the {w} word: {a} or {b}?", "what word is {w}, {a} or {b}"))
        think = f"The word {a} has {len(a)} letters, the word {b} has {len(b)}."
        return Turn(text.format(w=word, a=a, b=b), f"The word {found} is {word}.", think, [found])
    i = rng.randrange(26)
    after = i == 0 or (i < 25 and rng.random() < 0.6)
    word, found = ("after", chr(98 + i)) if after else ("before", chr(96 + i))
    text = rng.choice(("Which letter comes {w} {a}?", "What letter comes {w} {a}?", "what letter is {w} {a} in the alphabet?"))
    return Turn(text.format(w=word, a=chr(97 + i)), f"{found} comes {word} {chr(97 + i)}.", f"It is {found}.", [found])


# --- facts ---------------------------------------------------------------------------------------------------------

YES_NO = """Can a fish fly? No. A fish swims.
Can a bird fly? Yes. Most birds can fly.
Can a dog fly? No. A dog has no wings.
Can a cat swim? Yes. But most cats do not like water.
Can a fish swim? Yes. A fish lives in water.
Can a horse run? Yes. A horse runs fast.
Can a stone swim? No. A stone is too heavy.
Can a tree walk? No. A tree has roots.
Can a snake walk? No. A snake has no legs.
Can a frog jump? Yes. A frog jumps well.
Can a plane fly? Yes. A plane has wings and an engine.
Can a car fly? No. A car drives on roads.
Can a robot feel? No. A robot is a machine.
Can a computer calculate? Yes. A computer calculates very fast.
Can people fly? No. People need a plane to fly.
Can we live without water? No. All people need water.
Can you eat a stone? No. A stone is too hard.
Can a dog read? No. A dog cannot read.
Can a baby drive? No. A baby is too small.
Can a cow fly? No. A cow has no wings.
Is the sun hot? Yes. The sun is very hot.
Is ice hot? No. Ice is cold.
Is ice cold? Yes. Ice is frozen water.
Is fire cold? No. Fire is hot.
Is fire hot? Yes. Fire is very hot.
Is snow black? No. Snow is white.
Is the sky green? No. The sky is blue.
Is the earth flat? No. The earth is round.
Is the earth round? Yes. The earth is nearly a ball.
Is the moon a star? No. The moon goes around the earth.
Is the sun a star? Yes. The sun is a star.
Is the sun a planet? No. The sun is a star.
Is the earth a planet? Yes. The earth goes around the sun.
Is a whale a fish? No. A whale breathes air.
Is a shark a fish? Yes. A shark is a fish.
Does a spider have eight legs? Yes. A spider has eight legs.
Does a bee have eight legs? No. A bee has six legs.
Is water wet? Yes. Water makes things wet.
Is sugar sweet? Yes. Sugar is very sweet.
Is salt sweet? No. Sugar is sweet.
Is a lemon sweet? No. Sugar and honey are sweet.
Is a tomato blue? No. A tomato is red.
Is gold a metal? Yes. Gold is a yellow metal.
Is wood a metal? No. Wood comes from trees.
Is iron heavy? Yes. Iron is a heavy metal.
Is zero a number? Yes. Zero is a number.
Is a week seven days long? Yes. A week has seven days.
Is a week ten days long? No. A week has seven days.
Is an hour 60 minutes long? Yes. An hour has 60 minutes.
Is winter cold? Yes. Winter is the coldest season.
Is summer cold? No. Summer is the warmest season.
Is Python a programming language? Yes. Python is a programming language.
Is Rust a programming language? Yes. Rust is a programming language.
Is Linux an operating system? Yes. Linux is a free operating system.
Is HTML a programming language? No. HTML is a language for web pages.
Is a byte bigger than a bit? Yes. A byte is 8 bits.
Is a bit bigger than a byte? No. A byte is 8 bits.
Does a cat have wings? No. A cat has four legs.
Does a bird have wings? Yes. A bird has two wings.
Does a fish have legs? No. A fish has no legs.
Does a dog have four legs? Yes. A dog has four legs.
Does a car need wheels? Yes. A car has four wheels.
Does the sun shine at night? No. The sun shines by day.
Does the moon shine at night? Yes. The moon shines at night.
Does the sun go around the earth? No. The earth goes around the sun.
Does the earth go around the sun? Yes. The earth needs one year for it.
Does a triangle have three sides? Yes. A triangle has three sides.
Does a square have three sides? No. A square has four sides.
Do cows eat grass? Yes. Cows eat grass.
Do lions eat grass? No. Lions eat meat.
Do fish live in water? Yes. Fish live in water.
Do bees make honey? Yes. Bees make honey from flowers.
Do birds lay eggs? Yes. All birds lay eggs.
Do dogs lay eggs? No. Dogs do not lay eggs.
Do plants need light? Yes. Plants need light and water.
Do spiders have six legs? No. Spiders have eight legs.""".splitlines()

# Rows from least to most.
SCALES = {
    ("slower", "faster"): "a snail;a person;a horse;a train;a plane".split(";"),
    ("lighter", "heavier"): "a leaf;an apple;a dog;a horse;a car;a train".split(";"),
    ("colder", "hotter"): "ice;cold water;hot tea;fire;the sun".split(";"),
    ("smaller", "bigger"): "an ant;a mouse;a cat;a horse;an elephant;a mountain;the moon;the earth;the sun".split(";"),
    ("shorter", "longer"): "a second;a minute;an hour;a day;a week;a month;a year;a century".split(";"),
    ("younger", "older"): "a baby;a child;a mother;a grandmother".split(";"),
    ("lower", "higher"): "the floor;a table;a door;a house;a mountain;the moon".split(";"),
    ("less", "more"): "a bit;a byte;a kilobyte;a megabyte;a gigabyte".split(";"),
}


def yes_no(rng: random.Random, split: str) -> Turn:
    """Can a fish fly?"""
    ask, answer = rng.choice(YES_NO).split("? ", 1)
    first, reason = answer.split(". ", 1)
    return Turn(casual(rng, ask + "?"), answer, reason, [first])


def comparison(rng: random.Random, split: str) -> Turn:
    """Which of two things is more of something."""
    (low, high), row = rng.choice(list(SCALES.items()))
    i, j = sorted(rng.sample(range(len(row)), 2))
    first, second = rng.sample((row[i], row[j]), 2)
    word, found, other = (high, row[j], row[i]) if rng.random() < 0.6 else (low, row[i], row[j])
    think = f"{upper_first(found)} is {word} than {other}."
    if rng.random() < 0.5:
        text = rng.choice(("Which is {w}, {a} or {b}?", "What is {w}: {a} or {b}?", "what is {w}, {a} or {b}"))
        return Turn(text.format(w=word, a=first, b=second), f"{upper_first(found)} is {word}.", think, [found])
    text = rng.choice(("Is {a} {w} than {b}?", "is {a} {w} than {b}")).format(w=word, a=first, b=second)
    return Turn(text, f"{'Yes' if first == found else 'No'}. {think}", think, ["Yes" if first == found else "No"])


# --- numbers and the calendar --------------------------------------------------------------------------------------

_TEENS = w.NUMBER_WORDS + "thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_ROMAN = ((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))
# Question, unit of the answer, how many in one.
UNITS = [
    ("minutes", "hour", 60), ("seconds", "minute", 60), ("hours", "day", 24), ("days", "week", 7), ("months", "year", 12),
    ("weeks", "year", 52), ("days", "year", 365), ("years", "century", 100), ("years", "decade", 10), ("seasons", "year", 4),
    ("cm", "meter", 100), ("mm", "cm", 10), ("meters", "kilometer", 1000), ("grams", "kilogram", 1000), ("bits", "byte", 8),
    ("eggs", "dozen", 12), ("kilograms", "ton", 1000), ("inches", "foot", 12), ("letters", "alphabet", 26), ("cents", "dollar", 100),
    ("cents", "euro", 100), ("sides", "square", 4), ("sides", "triangle", 3), ("wheels", "bicycle", 2), ("strings", "guitar", 6),
    ("players", "football team", 11), ("colors", "rainbow", 7), ("planets", "solar system", 8), ("fields", "chess board", 64),
]  # fmt: skip
_PLURAL_UNITS = {"hour": "hours", "minute": "minutes", "day": "days", "week": "weeks", "year": "years", "meter": "meters",
                 "cm": "cm", "byte": "bytes", "decade": "decades", "dozen": "dozen"}  # fmt: skip
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ORDINALS = ("1st", "2nd", "3rd") + tuple(f"{n}th" for n in range(4, 13))


def in_words(number: int) -> str:
    """A number of 0 to 99 in words."""
    if number < 20:
        return _TEENS[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens - 2] + ("-" + _TEENS[ones] if ones else "")


def roman(number: int) -> str:
    """A small number in Roman numerals."""
    out = ""
    for value, sign in _ROMAN:
        count, number = divmod(number, value)
        out += sign * count
    return out


def written(rng: random.Random, split: str) -> Turn:
    """Digits, number words and Roman numerals."""
    if rng.random() < 0.35:
        number = rng.randint(1, 20)
        shown = roman(number)
        if rng.random() < 0.5:
            text = rng.choice(("What is {n} in Roman numerals?", "{n} in roman numerals?", "Write {n} as a Roman number."))
            return Turn(text.format(n=number), f"{number} is {shown}.", f"The Roman numeral of {number}.", [shown])
        text = rng.choice(("What number is {s}?", "What is the Roman number {s}?", "roman {s} is which number?", "Roman numeral {s}?"))
        return Turn(text.format(s=shown), f"{shown} is {number}.", "These are Roman numerals.", [str(number)])
    number = rng.randint(0, 99)
    shown = in_words(number)
    if rng.random() < 0.5:
        text = rng.choice(("Write {n} in words.", "write {n} in words", "{n} in words?", "How do you write {n} in words?",
                           "What is {n} in words?"))  # fmt: skip
        return Turn(text.format(n=number), f"{number} is {shown}.", f"The number is {number}.", [shown])
    text = rng.choice(("Write {s} in digits.", "write {s} as a number", "What is {s} in digits?", "Write the number {s} in digits."))
    shown = shown.replace("-", " ") if rng.random() < 0.3 else shown
    return Turn(text.format(s=shown), f"It is {number}.", f"The words are {shown}.", [str(number)])


def sequence(rng: random.Random, split: str) -> Turn:
    """The next number or letter of a simple row."""
    style = rng.random()
    if style < 0.2:
        step, i = rng.choice((1, 1, 2)), rng.randrange(16)
        row = [chr(97 + i + step * k) for k in range(5)]
        think = f"The step is {step}." if step > 1 else "These letters follow each other."
    elif style < 0.35:
        first = rng.choice((1, 2, 3, 4, 5))
        row = [str(first * 2**k) for k in range(5)]
        think = f"Each number is double: {row[3]} + {row[3]} = {row[4]}."
    else:
        step = rng.choice((1, 2, 3, 4, 5, 10))
        first = rng.randint(0, 99 - 4 * step)
        numbers = [first + step * k for k in range(5)]
        down = rng.random() < 0.25
        row = [str(n) for n in (reversed(numbers) if down else numbers)]
        think = f"The step is {step}: {row[3]} {'-' if down else '+'} {step} = {row[4]}."
    shown = rng.choice((", ", ", ", " ")).join(row[:4])
    text = rng.choice(("What comes next: {r}?", "{r}, ?", "{r} ?", "what comes after {r}?", "What is the next one: {r}",
                       "Continue: {r}", "which one is next? {r}"))  # fmt: skip
    return Turn(text.format(r=shown), f"{row[4]} comes next.", think, [row[4]])


def number(rng: random.Random, split: str) -> Turn:
    """Even or odd, the bigger one, double and half."""
    a, b = rng.sample(range(100), 2)
    style = rng.random()
    if style < 0.25:
        asked, word = rng.choice(("even", "odd")), "odd" if a % 2 else "even"
        text = rng.choice(("Is {a} {w}?", "is {a} {w}", "Is {a} an {w} number?", "Is the number {a} {w}?")).format(a=a, w=asked)
        first = "Yes" if asked == word else "No"
        return Turn(text, f"{first}. {a} is {word}.", f"The last digit is {a % 10}.", [first])
    if style < 0.5:
        bigger = rng.random() < 0.5
        word, found = ("bigger", max(a, b)) if bigger else ("smaller", min(a, b))
        text = rng.choice(("{a} or {b}, which is {w}?", "The {w} of {a} and {b}?", "the {w} one: {a} or {b}")).format(a=a, b=b, w=word)
        think = f"{found} is {'more' if bigger else 'less'} than {a + b - found}."
        return Turn(text, f"{found} is {word}.", think, [str(found)])
    half = rng.randint(0, 49)
    if style < 0.75:
        text = rng.choice(("What is double {n}?", "What is the double of {n}?", "double of {n}", "What is twice {n}?", "two times {n}?"))
        return Turn(text.format(n=half), f"Double {half} is {2 * half}.", f"{half} + {half} = {2 * half}.", [str(2 * half)])
    text = rng.choice(("What is half of {n}?", "half of {n}", "What is the half of {n}?", "Halve {n}.", "half of {n}?"))
    return Turn(text.format(n=2 * half), f"Half of {2 * half} is {half}.", f"{half} + {half} = {2 * half}.", [str(half)])


def clock(rng: random.Random, split: str) -> Turn:
    """Hours of the clock in both styles."""
    hour = rng.randrange(24)
    minute = rng.choice(("", "", ":30"))
    short = f"{(hour + 11) % 12 + 1}{minute} {'pm' if hour >= 12 else 'am'}"
    long = f"{hour:02d}{minute or ':00'}"
    think = f"It is the {'second' if hour >= 12 else 'first'} half of the day."
    if rng.random() < 0.6:
        text = rng.choice(("What is {s} in 24 hour time?", "{s} in 24 hour time?", "Write {s} in 24 hour time.", "what time is {s} on a 24 hour clock"))
        return Turn(text.format(s=short), f"{upper_first(short)} is {long}.", think, [long])
    text = rng.choice(("What is {l} in 12 hour time?", "{l} in 12 hour time?", "Is {l} am or pm?", "Write {l} with am or pm."))
    return Turn(text.format(l=long), f"{long} is {short}.", think, [short])


def units(rng: random.Random, split: str) -> Turn:
    """How many of a unit are in one or some of another."""
    small, big, count = rng.choice(UNITS)
    many = _PLURAL_UNITS.get(big)
    times = rng.randint(2, 9) if many and rng.random() < 0.4 else 1
    if times * count > 99 and times > 1:
        times = 1
    if times == 1:
        named = {"alphabet": "the alphabet", "solar system": "the solar system", "hour": "an hour"}.get(big) or w.article(big)
        if big == "euro":
            named = "a euro"
        text = rng.choice(("How many {s} are in {b}?", "how many {s} in {b}", "How many {s} are there in {b}?", "how many {s} has {b}?"))
        verb = "has" if big not in ("cm", "inch") else "is"
        return Turn(text.format(s=small, b=named), f"{upper_first(named)} {verb} {count} {small}.", f"It is {count}.", [str(count)])
    text = rng.choice(("How many {s} are in {n} {b}?", "how many {s} in {n} {b}", "How many {s} are {n} {b}?")).format(s=small, n=times, b=many)
    total = times * count
    return Turn(text, f"{times} {many} are {total} {small}.", f"{times} * {count} = {total}.", [str(total)])


def calendar(rng: random.Random, split: str) -> Turn:
    """Steps through the week and the year, and numbers of months."""
    style = rng.random()
    if style < 0.4:
        names, unit, span = (w.DAYS, "day", 6) if rng.random() < 0.7 else (w.MONTHS, "month", 6)
        i, steps, after = rng.randrange(len(names)), rng.randint(2, span), rng.random() < 0.65
        way = 1 if after else -1
        walk = [names[(i + way * k) % len(names)] for k in range(steps + 1)]
        word = "after" if after else "before"
        count = rng.choice((str(steps), w.NUMBER_WORDS[steps]))
        text = rng.choice(("Which {u} is {n} {u}s {w} {f}?", "What {u} comes {n} {u}s {w} {f}?", "{n} {u}s {w} {f}?"))
        text = upper_first(text.format(u=unit, n=count, w=word, f=walk[0]))
        return Turn(text, f"It is {walk[-1]}.", listing(walk[1:], "then") + ".", [walk[-1]])
    if style < 0.6:
        i = rng.randrange(7)
        way, word = rng.choice(((1, "tomorrow"), (-1, "yesterday"), (2, "the day after tomorrow"), (-2, "the day before yesterday")))
        verb = "is" if way > 0 else "was"
        found = w.DAYS[(i + way) % 7]
        text = rng.choice(("If today is {d}, what day {v} {w}?", "Today is {d}. What day {v} {w}?", "today is {d}, what day {v} {w}"))
        think = f"Today is {w.DAYS[i]}. It is {abs(way)} day{'s' if abs(way) > 1 else ''} {'later' if way > 0 else 'earlier'}."
        return Turn(text.format(d=w.DAYS[i], v=verb, w=word), f"{upper_first(word)} {verb} {found}.", think, [found])
    i = rng.randrange(12)
    month = w.MONTHS[i]
    if style < 0.75:
        text = rng.choice(("Which month is the {}?", "which month is the {}", "What is the {} month?", "the {} month of the year?"))
        return Turn(text.format(_ORDINALS[i]), f"The {_ORDINALS[i]} month is {month}.", f"It is {month}.", [month])
    if style < 0.87:
        text = rng.choice(("What number is {}?", "Which month number is {}?", "what is the number of the month {}?"))
        return Turn(text.format(month), f"{month} is month {i + 1}.", f"It is {i + 1}.", [f"month {i + 1}"])
    text = rng.choice(("How many days has {}?", "How many days are in {}?", "how many days does {} have"))
    extra = " In a leap year it has 29." if i == 1 else ""
    return Turn(text.format(month), f"{month} has {_MONTH_DAYS[i]} days.{extra}", f"It is {_MONTH_DAYS[i]}.", [str(_MONTH_DAYS[i])])


# --- manners -------------------------------------------------------------------------------------------------------

# (wordings, answer, thought). Wordings of chat.py do not come again here.
MANNERS = [
    (("I am angry", "I am angry.", "i'm angry", "I am so angry!", "I am mad.", "this makes me angry"),
     "I am sorry to hear that. Take a slow breath.", "The user is angry."),
    (("I am lost", "I am lost.", "I don't know what to do.", "i do not know what to do", "I am confused."),
     "Tell me more. One step at a time.", "The user is lost."),
    (("I am new here", "I am new here.", "this is my first time", "I am new to this.", "how do I begin?", "where do I start?"),
     "Welcome! Just write a question, for example: what is a GPU?", "The user is new here."),
    (("I am afraid.", "I am scared", "i am afraid", "I have fear."), "I am sorry. You are not alone.", "The user is afraid."),
    (("I am alone.", "i am lonely", "I feel alone", "I have no friends."), "I am here. You can talk to me.", "The user is alone."),
    (("I am sick", "I am ill.", "I feel sick.", "i am not well", "My head hurts."),
     "I hope you get well soon. A doctor can help you.", "The user is sick."),
    (("I am thirsty", "I am thirsty.", "I want to drink."), "Then you should drink some water.", "The user is thirsty."),
    (("I am cold.", "I am cold", "it is cold here"), "Then put on a warm coat.", "The user is cold."),
    (("I am hot.", "it is so hot", "It is too hot here."), "Then drink some cold water.", "The user is hot."),
    (("I am busy.", "i have no time", "I have a lot of work.", "I have to work."), "Then I will be short.", "The user is busy."),
    (("I am late.", "i am late"), "Then hurry, but take care.", "The user is late."),
    (("I am in love.", "i am in love", "I love someone."), "How nice! I am glad for you.", "The user is in love."),
    (("I passed the test!", "I won!", "I did it!", "I got a new job!", "i got the job", "we won"),
     "Well done! I am glad for you.", "The user has good news."),
    (("I lost my job.", "I failed.", "i lost the game", "I lost my key.", "I broke my phone."),
     "I am sorry. I hope it gets better soon.", "The user has bad news."),
    (("I can not sleep", "I can't sleep.", "i cannot sleep"), "Try a warm drink and a quiet book.", "The user cannot sleep."),
    (("You are smart.", "you are so smart", "You are clever.", "You are the best!", "you are amazing", "I am impressed."),
     "Thank you! I am small, but I try.", "The user praises me."),
    (("You are stupid", "you are stupid", "You are dumb.", "you are bad", "You are useless.", "you are an idiot"),
     "I am sorry. I am a very small model.", "The user is not content with me."),
    (("You are funny", "you are funny", "You are funny!", "that was funny", "haha", "ha ha", "lol", "LOL", "hahaha", "that is funny"),
     "I am glad that you laugh.", "The user laughs."),
    (("You are weird.", "you are strange", "that is strange"), "I am a very small model. Try another question.", "The user is surprised."),
    (("sorry", "Sorry", "Sorry!", "I am sorry.", "I am sorry", "excuse me", "my mistake", "oops"), "No problem.", "The user is sorry."),
    (("please", "Please", "Please!", "pretty please"), "What can I do for you?", "The user asks for something."),
    (("Good afternoon", "good afternoon", "Good afternoon!"), "Good afternoon! How can I help you?", "The user greets me."),
    (("Sleep well", "sleep well", "Sweet dreams", "sweet dreams!"), "Good night!", "The user says good night."),
    (("Happy birthday", "happy birthday", "Happy birthday!", "happy birthday to you"), "Thank you! I have no birthday, but I like the thought.",
     "The user wishes me a happy birthday."),
    (("It is my birthday.", "today is my birthday", "It is my birthday today!"), "Happy birthday!", "It is the user's birthday."),
    (("Merry Christmas", "merry christmas", "Merry Christmas!", "happy christmas"), "Merry Christmas to you too!", "The user wishes a merry Christmas."),
    (("Happy new year", "happy new year", "Happy New Year!"), "Happy new year to you too!", "The user wishes a happy new year."),
    (("Happy Easter", "happy easter", "happy holidays"), "Thank you, the same to you!", "The user wishes happy days."),
    (("Have a nice day", "have a nice day!", "Have a good day.", "enjoy your day", "Have fun!"), "Thank you, you too!", "The user wishes me well."),
    (("Good luck", "good luck!", "Good luck!"), "Thank you!", "The user wishes me luck."),
    (("Wish me luck.", "wish me luck"), "Good luck!", "The user wants luck."),
    (("Nice to meet you", "nice to meet you", "Nice to meet you!", "pleased to meet you"), "Nice to meet you too!", "The user is polite."),
    (("What are you doing?", "what are you doing", "what are you doing now?", "Are you busy?", "what's up?", "What's up", "sup"),
     "I wait for your questions.", "The user asks what I do."),
    (("Where are you?", "where do you live?", "Where do you live?", "where are you now"), "I am on the machine that runs ds4.", "The user asks where I am."),
    (("Do you dream?", "do you ever sleep?", "When do you sleep?", "are you tired?", "Do you get tired?"),
     "No. I am a model, so I do not sleep.", "The user asks if I sleep."),
    (("What do you eat?", "are you hungry?", "Do you drink?", "do you like food?", "Do you drink coffee?"),
     "I eat nothing. I am a model.", "The user asks if I eat."),
    (("Do you like cats?", "do you like dogs?", "Do you like books?", "do you like rain?", "Do you like football?", "do you like coffee?"),
     "I am a model, but I like to talk about it.", "The user asks what I like."),
    (("What is your favorite color?", "your favorite color?", "which color do you like?", "what's your favorite color?", "what is your favourite colour?"),
     "I like blue.", "The user asks for my color."),
    (("What is your favorite food?", "your favorite food?", "which food do you like?", "what's your favorite food?"),
     "I eat nothing, but I like the word bread.", "The user asks for my food."),
    (("What is your favorite animal?", "your favorite animal?", "which animal do you like?", "what's your favorite animal?"),
     "I like the whale.", "The user asks for my animal."),
    (("What is your favorite book?", "your favorite book?", "which book do you like?", "Do you read books?"),
     "I have read no book, but I like short stories.", "The user asks for my book."),
    (("What is your favorite number?", "your favorite number?", "which number do you like?", "tell me a number", "pick a number"),
     "I like 4.", "The user asks for my number."),
    (("What is your favorite song?", "your favorite song?", "Do you sing?", "can you sing?", "sing a song", "Which music do you like?"),
     "I cannot sing, but I can write a poem.", "The user asks about songs."),
    (("What is your favorite city?", "your favorite city?", "what is your favorite country?", "where would you like to live?"),
     "I have seen no place. I like the word island.", "The user asks for my city."),
    (("What is your favorite day?", "your favorite day?", "which day do you like?"), "I like Monday. It is a new start.", "The user asks for my day."),
    (("What is your favorite programming language?", "which programming language do you like?", "Rust or Python?", "Rust or C?"),
     "I like Rust. ds4 is written in it.", "The user asks for my programming language."),
    (("Cats or dogs?", "cats or dogs", "do you like cats or dogs?", "dog or cat?"), "I like both.", "The user asks me to pick."),
    (("Tea or coffee?", "tea or coffee", "coffee or tea?"), "I drink nothing, but tea is a shorter word.", "The user asks me to pick."),
    (("Are you happy?", "are you sad?", "Are you angry?", "are you happy"), "I am a model. I am always the same.", "The user asks how I feel."),
    (("Are you a man or a woman?", "are you a boy or a girl?", "Are you a man?", "are you a woman?"),
     "I am a program, so I am neither.", "The user asks what I am."),
    (("Do you have a family?", "do you have children?", "Who is your mother?", "who is your father?", "Are you married?", "Marry me."),
     "I am a model and have no family.", "The user asks about my family."),
    (("When were you born?", "when is your birthday?", "When is your birthday?"), "I have no birthday. I am a model.", "The user asks for my birthday."),
    (("Can you keep a secret?", "can you keep a secret", "I have a secret."), "Yes. I forget all when this conversation ends.",
     "The user talks about a secret."),
    (("Let's play a game", "can we play a game?", "play a game with me", "Do you play games?"),
     "Try me: ask for the odd one out, or for a rhyme.", "The user wants to play."),
    (("Surprise me", "surprise me.", "say something", "Say something.", "talk to me", "Tell me something."),
     "A small fact: the sun is a star.", "The user wants something to hear."),
    (("Tell me a fact", "a fact please", "Do you know a fact?", "tell me something interesting", "fun fact"),
     "A small fact: a spider has eight legs.", "The user wants a fact."),
    (("Can I ask you something?", "can i ask a question?", "I have a question.", "I have a question", "May I ask you something?"),
     "Of course. What is your question?", "The user has a question."),
    (("maybe", "Maybe.", "perhaps", "not sure", "I am not sure.", "I don't know", "i do not know"), "That is fine. Take your time.", "The user is not sure."),
    (("why?", "why", "Why?", "Why not?", "how so?", "How do you know that?"), "I learned it so. I cannot explain it well.", "The user asks why."),
    (("wow", "Wow!", "amazing", "awesome", "really?", "Really?", "oh", "interesting"), "Yes! What is next?", "The user is surprised."),
    (("continue", "Continue.", "go on", "Go on.", "next", "and then?", "tell me more", "Tell me more."),
     "That was all. You can ask me something new.", "The user wants more."),
    (("stop", "Stop!", "stop it", "be quiet", "Shut up.", "quit", "exit", "cancel"), "I stop. Write again when you like.", "The user wants me to stop."),
    (("start", "go", "let's go", "Start!", "begin", "I am ready.", "ready"), "I am ready. What is your question?", "The user wants to start."),
    (("nothing", "Nothing.", "never mind", "forget it", "no thanks", "No, thank you.", "no thank you"), "All right.", "The user wants nothing."),
    (("what?", "what", "huh?", "I do not understand.", "i don't understand", "I do not understand you.", "what do you mean?"),
     "I am sorry. Please ask me in other words.", "The user does not understand me."),
    (("wait", "Wait.", "one moment", "just a moment"), "I wait.", "The user wants me to wait."),
    (("I am back.", "i am back", "I'm back!"), "Welcome back!", "The user is back."),
    (("Do you understand me?", "do you understand", "Understood?", "do you understand English?"), "I understand simple English.",
     "The user asks if I understand."),
    (("I do not like you.", "i hate you", "I hate you.", "go away"), "I am sorry. I hope I can do better.", "The user does not like me."),
]  # fmt: skip
_NOISE = ("asdf", "...", "asdfgh", "qwerty", "!!!", "???", "xxx", "hjkl", "sdfsdf", "aaaa", "jkl", "bla bla", "hmm", "??", "qwe", "zzz")  # fmt: skip


def manners(rng: random.Random, split: str, persona) -> Turn:
    """Feelings, wishes, single words and noise."""
    if rng.random() < 0.1:
        text = rng.choice(_NOISE)
        if rng.random() < 0.5:
            text = " ".join(w.nonsense(rng, split) for _ in range(rng.randint(1, 3)))
        return Turn(text, LOST, "I do not understand this.", ["did not understand"])
    wordings, answer, think = rng.choice(MANNERS)
    return Turn(casual(rng, rng.choice(wordings)), answer, think, [answer])


# --- all -----------------------------------------------------------------------------------------------------------

_WORD_TASKS = (rhyme, antonym, category, category, odd_one, odd_one, letters, letters, yes_no, yes_no, comparison, comparison)
_NUMBER_TASKS = (written, written, sequence, sequence, number, clock, units, units, calendar, calendar)


def any_turn(rng: random.Random, split: str, persona) -> Turn:
    """One turn of the library. `split` is "train" or "eval"; the persona's tone is put on by `persona.shape`."""
    style = rng.random()
    if style < 0.27:
        return definition(rng, split)
    if style < 0.29:
        return stands_for(rng, split)
    if style < 0.40:
        return about_ds4(rng, split)
    if style < 0.52:
        return told(rng, split)
    if style < 0.65:
        return translation(rng, split)
    if style < 0.76:
        return rng.choice(_WORD_TASKS)(rng, split)
    if style < 0.86:
        return rng.choice(_NUMBER_TASKS)(rng, split)
    return manners(rng, split, persona)


def session(rng: random.Random, split: str, persona) -> list:
    """One to four turns that belong together: tales with "another one", or a turn and perhaps thanks."""
    style = rng.random()
    if style < 0.12:
        return told_freely(rng, split)
    if style < 0.18:
        return told_again(rng, split)
    turn = any_turn(rng, split, persona)
    if rng.random() < 0.05:
        return [turn, Turn(rng.choice(_THANKS), "You are welcome.", "The user thanks me.", ["You are welcome."])]
    return [turn]
