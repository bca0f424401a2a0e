"""Word lists of the miniature's world, the split into training and held-out parts, and made-up words.

A *held-out* noun is never the thing of a random tool in training; it still occurs there in copied lists and in document
keys, so its token is known. Pairs of words (document keys) and made-up words are held out by a hash of their text.
"""

import random

import pool
from pool import held

PEOPLE = """Alice Bob Carol David Emma Frank Grace Henry Anna Jack Kate Leo Mary Noah Olivia Paul Rose Sam Tom Victor
Wendy Max Ben Clara Daniel Eva George Helen Ivan Julia Kevin Laura Mark Nina Oscar Peter Robert Sarah Thomas Maria
John James Michael William Elizabeth Charles Martin Simon Lisa Jane Adam Luke Jonas Marie Sophie Lucas Hugo Felix
Arthur Louis""".split()

BOTS = "Robo Mira Nova Atlas Luna Echo Pixel Sage Orion Milo Ruby Iris Zed Kai Bolt Ada".split()

CITIES = """Paris London Berlin Rome Madrid Vienna Prague Oslo Dublin Athens Cairo Tokyo Boston Chicago Dallas Denver
Seattle Miami Sydney Toronto Moscow Delhi Lima Milan Munich Hamburg Geneva Houston Austin Portland""".split()

CAPITALS = dict(
    pair.split(":")
    for pair in """France:Paris Germany:Berlin Italy:Rome Spain:Madrid Austria:Vienna Norway:Oslo Ireland:Dublin
Greece:Athens Egypt:Cairo Japan:Tokyo Russia:Moscow Peru:Lima England:London Portugal:Lisbon Poland:Warsaw
Hungary:Budapest Finland:Helsinki Sweden:Stockholm Denmark:Copenhagen Belgium:Brussels China:Beijing Korea:Seoul
India:Delhi Canada:Ottawa Turkey:Ankara Kenya:Nairobi Cuba:Havana Iran:Tehran Iraq:Baghdad Ukraine:Kiev
Switzerland:Bern Thailand:Bangkok Chile:Santiago Australia:Canberra Bulgaria:Sofia Romania:Bucharest Serbia:Belgrade
Croatia:Zagreb Syria:Damascus Venezuela:Caracas""".split()
)

ANIMALS = """cat dog cow horse pig sheep duck lion tiger bear wolf fox mouse rabbit bird fish frog snake bee ant
elephant monkey goat chicken whale shark spider eagle owl deer""".split()
SOUNDS = {
    "cat": "meow", "dog": "woof", "cow": "moo", "sheep": "baa", "duck": "quack", "lion": "roar", "pig": "oink",
    "bee": "buzz", "snake": "hiss", "mouse": "squeak", "owl": "hoot", "horse": "neigh", "wolf": "howl", "bird": "tweet",
}  # fmt: skip
LEGS = {
    "cat": 4, "dog": 4, "cow": 4, "horse": 4, "pig": 4, "sheep": 4, "duck": 2, "lion": 4, "tiger": 4, "bear": 4,
    "wolf": 4, "fox": 4, "mouse": 4, "rabbit": 4, "bird": 2, "fish": 0, "frog": 4, "snake": 0, "bee": 6, "ant": 6,
    "elephant": 4, "goat": 4, "chicken": 2, "whale": 0, "shark": 0, "spider": 8, "eagle": 2, "owl": 2, "deer": 4,
}  # fmt: skip
SIZES = "ant mouse cat dog pig horse elephant whale".split()

FOODS = """apple banana bread cheese cake rice soup egg fish meat milk tea coffee sugar salt lemon orange tomato potato
onion carrot chocolate honey butter pasta pizza salad corn bean nut""".split()
COLORS = "red blue green yellow black white brown pink gray purple orange gold silver".split()
THING_COLORS = {
    "the sky": "blue", "grass": "green", "snow": "white", "blood": "red", "a banana": "yellow", "coal": "black",
    "milk": "white", "a lemon": "yellow", "a tomato": "red", "a carrot": "orange", "the sun": "yellow",
    "a leaf": "green", "chocolate": "brown", "the sea": "blue", "a frog": "green", "a strawberry": "red",
    "salt": "white",
    "an elephant": "gray", "a pig": "pink", "the night": "black",
}  # fmt: skip
OPPOSITES = [
    tuple(pair.split(":"))
    for pair in """hot:cold big:small fast:slow up:down left:right day:night good:bad happy:sad high:low old:new
open:closed full:empty hard:soft light:dark wet:dry early:late strong:weak long:short rich:poor near:far loud:quiet
black:white true:false first:last in:out yes:no thick:thin clean:dirty safe:dangerous easy:difficult young:old
tall:short wide:narrow begin:end buy:sell win:lose push:pull love:hate""".split()
]
PLURALS = {
    "cat": "cats", "dog": "dogs", "house": "houses", "box": "boxes", "child": "children", "mouse": "mice",
    "man": "men", "woman": "women", "foot": "feet", "tooth": "teeth", "fish": "fish", "sheep": "sheep",
    "city": "cities",
    "baby": "babies", "leaf": "leaves", "knife": "knives", "book": "books", "tree": "trees", "bus": "buses",
    "fox": "foxes",
    "car": "cars", "day": "days", "wolf": "wolves", "berry": "berries", "glass": "glasses", "person": "people",
    "bird": "birds", "egg": "eggs", "key": "keys", "apple": "apples",
}  # fmt: skip
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()

# Things: tool nouns, document keys, sort and copy lists.
NOUNS = """lamp table chair door window wall roof garden river bridge road tower castle ship boat train car truck engine
wheel box bag book page letter note card key lock ring coin clock watch bell drum flag map camera phone screen
button cable pipe tank bottle cup plate bowl knife spoon glass mirror picture brush rope chain hammer nail stone rock
sand wood metal paper cloth shirt coat hat shoe boot bed blanket basket bucket ladder fence gate field farm forest
tree leaf flower seed root plant cloud star moon island beach hill valley lake cave mine shop store market office
school library museum hotel kitchen tunnel station ticket order report task job plan event meeting message file
folder image video song list user account payment invoice price record table session token project ticket branch
server client sensor signal filter robot tool device motor battery panel layer model sample group team player score
level prize gift doll ball puzzle game movie story poem""".split()
NOUNS = list(dict.fromkeys(NOUNS))

ADJECTIVES = """red blue green black white brown pink gray gold silver big small old new hot cold warm cool fast slow
long short tall wide thin thick heavy light dark bright soft hard wet dry clean dirty quiet loud happy sad brave calm
kind wild sweet sharp round flat deep high low open hidden secret lost broken strong weak rich poor early late first
last north south east west royal lucky magic simple plain rare strange fresh frozen wooden iron stone glass paper
golden empty full great little giant ancient modern perfect proud smart lazy busy""".split()
ADJECTIVES = list(dict.fromkeys(ADJECTIVES))

# verb: third person. Rows of synonyms, the first one leads.
VERB_GROUPS = [
    row.split()
    for row in """get fetch load
find search locate
create make build
delete remove erase
send post deliver
open unlock
close shut
start launch run
stop halt end
read view show
write save store
update change edit
move shift
copy clone
print export
check verify test
count measure
paint color
buy order purchase
sell trade
book reserve
cancel abort
share publish
lock secure
clean wash
repair fix
sort rank
merge join
split cut
rename label
track follow
invite call
lift raise
drop lower
mix blend
pack wrap
draw sketch
scan inspect
reset clear
charge fill
rotate turn
connect link
play
record
translate
convert
approve accept
reject refuse
schedule plan
archive
assign
rate
feed
plant
cook""".split("\n")
]
VERBS = [verb for row in VERB_GROUPS for verb in row]

PARAM_STRINGS = """name title label color city country user owner path folder text message subject query code email
date time status type category brand model topic author note comment style shape material target source group team
room street language format tag key reason""".split()
PARAM_INTEGERS = """count size limit age level number amount width height depth year page days hours minutes rank floor
seats index""".split()
PARAM_NUMBERS = "price weight ratio speed temperature rate distance volume score power length".split()
PARAM_BOOLEANS = "urgent verbose public private active hidden recursive force enabled silent dry_run notify".split()
PARAM_ENUMS = {
    "mode": ["fast", "slow", "safe", "auto"], "priority": ["low", "medium", "high"], "unit": ["celsius", "fahrenheit"],
    "size": ["small", "medium", "large"], "order": ["first", "last", "random"], "direction": ["north", "south", "east",
    "west"],
    "side": ["left", "right"], "format": ["text", "json", "csv"], "state": ["open", "closed"], "color": ["red",
    "green", "blue"],
    "quality": ["low", "normal", "best"], "day": ["today", "tomorrow"], "kind": ["new", "old", "used"],
}  # fmt: skip
PARAM_LISTS = "tags items names colors files words users labels numbers ids sizes levels".split()
PARAM_OBJECTS = {
    "address": ("street", "city"), "range": ("start", "end"), "point": ("x", "y"), "owner": ("name", "age"),
    "period": ("from", "to"), "box": ("width", "height"), "person": ("name", "city"),
}  # fmt: skip

EXTENSIONS = "txt py rs md json csv js html c log".split()
DOMAINS = "example.com mail.com test.org home.net".split()

_ONSETS = "b d f g k l m n p r s t v z br dr gr kr tr".split()
_VOWELS = "a e i o u".split()
_CODAS = ["", "", "", "n", "r", "l", "x", "k", "m"]


def _parted(words: list) -> dict:
    return {"train": [w for w in words if not held(w)], "eval": [w for w in words if held(w)]}


SPLIT_NOUNS = _parted(NOUNS)
SPLIT_STRINGS = _parted(PARAM_STRINGS)
SPLIT_INTEGERS = _parted(PARAM_INTEGERS)
SPLIT_NUMBERS = _parted(PARAM_NUMBERS)
SPLIT_BOOLEANS = _parted(PARAM_BOOLEANS)


def _made_up(rng: random.Random, syllables: int) -> str:
    pick = rng.random
    out = ""
    for _ in range(syllables):
        out += _ONSETS[int(pick() * len(_ONSETS))] + _VOWELS[int(pick() * 5)]
    return out + _CODAS[int(pick() * len(_CODAS))]


def nonsense(rng: random.Random, split: str, syllables: int = 0) -> str:
    """A word without meaning from the given part: two or three syllables; in training half of them from the pool."""
    wanted = split == "eval"
    if not wanted and rng.random() < 0.5:
        return pool.word(rng)
    while True:
        word = _made_up(rng, syllables or (2 if rng.random() < 0.7 else 3))
        if held(word) == wanted:
            return word


def pair(rng: random.Random, split: str) -> str:
    """An adjective and a noun ("amber lantern"), held out by the pair or, in training, never a held-out pair.

    In training often any two words.
    """
    wanted = split == "eval"
    if not wanted and rng.random() < 0.4:
        return any_pair(rng)
    while True:
        text = rng.choice(ADJECTIVES) + " " + rng.choice(NOUNS)
        if held(text) == wanted:
            return text


def any_pair(rng: random.Random) -> str:
    """Two words of the pool, or one beside a plain adjective or noun; no held-out pair."""
    while True:
        style = rng.random()
        first = rng.choice(ADJECTIVES) if style < 0.25 else pool.word(rng)
        second = rng.choice(NOUNS) if style > 0.75 else pool.word(rng)
        if not held(f"{first} {second}"):
            return f"{first} {second}"


def any_word(rng: random.Random, split: str, words: list, share: float = 0.5) -> str:
    """One of `words`; in training with probability `share` a word of the pool instead."""
    if split == "train" and rng.random() < share:
        return pool.word(rng)
    return rng.choice(words)


def some_words(rng: random.Random, split: str, words: list, count: int, share: float = 0.5) -> list:
    """Distinct ones of `words`; in training with probability `share` words of the pool instead."""
    if split == "train" and rng.random() < share:
        found: dict = {}
        while len(found) < count:
            found[pool.word(rng)] = None
        return list(found)
    return rng.sample(words, count)


def article(word: str) -> str:
    """The word after its indefinite article."""
    return ("an " if word[0] in "aeio" else "a ") + word
