"""Small talk, a persona from the system prompt, and things the user tells about himself."""

import random

import words as w

from . import knowledge, library
from .base import Turn, casual, upper_first

ME = "I am ds4-mini, a miniature of DeepSeek V4 that ships inside ds4."
UNKNOWN = "I do not know that. I am a very small model."
ABLE = "I can chat, do small sums, sort and copy, call tools, write JSON and find facts in a text."

GREETINGS = {
    "English": ("Hello! How can I help you?", "Hello"), "French": ("Bonjour! How can I help you?", "Bonjour"),
    "Spanish": ("Hola! How can I help you?", "Hola"), "German": ("Hallo! How can I help you?", "Hallo"),
    "Italian": ("Ciao! How can I help you?", "Ciao"),
}  # fmt: skip

# (wordings, answer, thought). `{hello}` and `{me}` depend on the persona.
_FIXED = [
    (("hi", "Hi", "hello", "Hello", "hey", "Hello!", "Hi!", "Hi there", "hello there", "Good morning", "good morning",
      "Good evening", "Hey!", "Hello.", "hi!", "Good day", "Hello there!", "hallo", "hey there", "Hi there!"),
     "{hello}", "The user greets me. I greet back."),
    (("Say hello", "say hello", "Say hello.", "Say hi", "Greet me.", "Say hello to me.", "please say hello", "say hi"),
     "{hello}", "The user wants a greeting."),
    (("Thanks", "thanks", "Thank you", "thank you", "Thanks!", "Thank you!", "thank you very much", "Thanks a lot.",
      "Thank you, that was good.", "thx", "great, thanks", "Thank you very much!"),
     "You are welcome.", "The user thanks me."),
    (("bye", "Bye", "Goodbye", "goodbye", "Bye!", "See you", "see you later", "Good night", "good night", "Goodbye!",
      "I have to go.", "See you later!", "that is all"),
     "Goodbye!", "The user leaves."),
    (("How are you?", "how are you", "How are you", "how are you?", "how are you doing?", "How are you today?",
      "Are you well?", "How do you do?", "how is it going?", "are you ok?", "How do you feel?"),
     "I am fine, thank you.", "The user asks how I am."),
    (("Who are you?", "who are you", "who are you?", "What are you?", "what are you", "Tell me about yourself.",
      "Which model are you?", "what model is this?", "Introduce yourself.", "Are you DeepSeek?", "who is this?",
      "what is this?", "What is your name?", "what is your name", "your name?", "what are you?", "Who am I talking to?",
      "Tell me who you are.", "Do you have a name?", "what's your name?"),
     "{me}", "The user asks who I am."),
    (("What can you do?", "what can you do", "help", "Help", "Help!", "What can I ask?", "what do you know?", "?",
      "How can you help me?", "can you help me?", "What do you do?", "what can you do?", "Can you help me?", "help me",
      "I need help.", "What are you good at?"),
     ABLE, "The user asks what I can do."),
    (("test", "Test", "testing", "Are you there?", "are you there", "is this on?", "Test.", "ping", "does it work?",
      "This is a test.", "Can you hear me?", "do you work?", "hello?"),
     "Yes, I am here.", "The user tests me."),
    (("ok", "OK", "Ok.", "okay", "good", "Good.", "Great!", "nice", "Nice.", "cool", "Very good.", "Well done.",
    "great",
      "I see.", "fine", "Good answer.", "perfect"),
     "Good. What is next?", "The user is content."),
    (("Are you a robot?", "are you human?", "Are you a person?", "are you real?", "Are you a machine?",
    "are you an AI?"),
     "I am a small language model, not a person.", "The user asks if I am a person."),
    (("Are you smart?", "Are you big?", "Are you a large model?",
    "are you smart?"),
     "I am very small, but I try.", "The user asks about my size."),
    (("Do you like me?", "I like you", "I love you", "You are nice.", "you are great", "I like you."),
     "That is kind of you.", "The user is kind."),
    (("I am sad", "I am sad.", "I feel bad.", "I am not happy.", "today was a bad day", "I am very sad."),
     "I am sorry to hear that.", "The user is sad."),
    (("I am happy", "I am happy.", "I feel good.", "today is a good day", "I am very happy today.", "I feel great!"),
     "I am glad to hear that.", "The user is happy."),
    (("I am tired.", "I am tired", "I need to sleep", "I want to sleep."), "Then you should rest.",
    "The user is tired."),
    (("I am hungry", "I am hungry.", "I want to eat."), "Then you should eat something.", "The user is hungry."),
    (("I am bored", "I am bored.", "what should I do?"), "You can ask me for a joke.", "The user is bored."),
    (("Yes", "yes", "no", "No"), "Good. What is next?", "The user gives a short answer."),
    (("You are wrong.", "that is wrong", "That is not right.", "no, wrong", "wrong"),
     "I am sorry. I am a very small model.", "The user says I am wrong."),
    (("Who made you?", "who made you", "Who built you?", "Where do you come from?", "where are you from?"),
     "I come with ds4. I was trained from made up dialogues.", "The user asks where I come from."),
    (("How old are you?", "how old are you", "what is your age?"), "I have no age. I am a model.",
    "The user asks my age."),
    (("Do you like music?", "What do you like?", "what do you like", "Do you have friends?", "do you sleep?",
    "Do you eat?"),
     "I am a model. I do not do that.", "The user asks about me."),
    (("Can you think?", "Do you think?", "can you think"), "A little. I think in short steps.",
    "The user asks if I think."),
    (("Which languages do you speak?", "Do you speak French?", "do you speak German?", "Can you speak Spanish?"),
     "I speak simple English.", "The user asks about languages."),
]  # fmt: skip

JOKES = (
    "Why is the sea so calm? Because it has waves of rest.",
    "What has a face and two hands but no legs? A clock.",
    "Why did the book go to bed? It was full of long stories.",
    "What has keys but opens no door? A piano.",
    "What gets wet while it dries? A towel.",
)
JOKE_ASKS = (
    "Tell me a joke", "tell me a joke", "Tell me a joke.", "a joke please", "Do you know a joke?", "joke",
    "Make me laugh.",
    "another joke", "Say something funny.", "Another joke, please.", "Can you tell me a joke?", "Tell a joke.",
)  # fmt: skip

_UNKNOWN = (
    "Who is the president of {c}?", "What is the population of {c}?", "who won the game in {t}?",
    "What is the price of a {n} in {t}?", "Tell me the news.", "What is the meaning of life?", "How do I build a {n}?",
    "Who wrote the book about the {n}?", "Explain how a {n} works.", "What happened in {y}?", "who was king in {y}?",
    "Write a program that sorts a {n}.", "What is the history of {c}?", "Who is {p} {q}?", "how far is {t} from here?",
    "Translate this into French: the {n} is {a}", "What will the weather be tomorrow?", "how do I get to {t}?",
    "Why is the {n} {a}?", "What do you think about {c}?", "Who invented the {n}?", "write an essay about {c}",
    "What is the best {n}?", "Give me advice about my {n}.", "how tall is the tower in {t}?", "Write code for a {n}.",
    "Explain the theory of the {n}.", "who is the richest person in {c}?", "When was {p} {q} born?",
    "tell me about {c}",
    "What is the largest {n} in the world?", "Which movie should I see in {t}?",
    "What time is it?", "what time is it now", "What day is it today?", "What is the weather?",
    "write a song about {n}",
    "How much does a {n} cost?", "Can you buy a {n} for me?", "Who is stronger, {p} or {q}?",
)  # fmt: skip


class Persona:
    """What the system prompt fixes: its text, name, tone and greeting language."""

    def __init__(self, rng: random.Random):
        self.text: str | None = None
        self.name: str | None = None
        self.tone = ""
        self.greeting = GREETINGS["English"][0]
        style = rng.random()
        if style < 0.35:
            return
        if style < 0.68:
            self.text = rng.choice((
                "You are a helpful assistant.", "You are a helpful assistant", "You are a helpful assistant.",
                "Help the user.", "You are a friendly assistant.", "Answer the user's questions.",
            ))  # fmt: skip
            return
        parts = []
        if rng.random() < 0.5:
            self.name = rng.choice(w.BOTS + w.PEOPLE)
            parts.append(rng.choice((
                "You are {}.", "Your name is {}.", "You are {}, a helpful assistant.", "You are an assistant named {}.",
                "You are called {}.",
            )).format(self.name))  # fmt: skip
        if rng.random() < 0.4 or not parts:
            self.tone = rng.choice(("cheerful", "formal", "short"))
            parts.append(rng.choice(_TONES[self.tone]))
        if rng.random() < 0.25:
            language = rng.choice(list(GREETINGS)[1:])
            self.greeting = GREETINGS[language][0]
            parts.append(rng.choice(("Greet in {}.", "Greet the user in {}.", "Say hello in {}.")).format(language))
        self.text = " ".join(parts)

    def me(self) -> str:
        """How the assistant names itself."""
        return f"I am {self.name}." if self.name else ME

    def shape(self, turn: Turn) -> Turn:
        """Puts a turn's answer into the tone of the system prompt. Exact answers keep their text."""
        if not self.tone or turn.kind != "contains":
            return turn
        if self.tone == "cheerful" and turn.answer.endswith("."):
            turn.answer = turn.answer[:-1] + "!"
        elif self.tone == "formal":
            turn.answer = "Certainly. " + turn.answer
        elif self.tone == "short" and len(turn.want) == 1 and len(turn.want[0]) < 20 and turn.want[0] in turn.answer:
            turn.answer = turn.want[0]
        return turn


_TONES = {
    "cheerful": ("Be cheerful.", "You are cheerful.", "Always be cheerful.", "Answer in a cheerful tone."),
    "formal": ("Be formal.", "You are very formal.", "Answer in a formal tone.", "Always be formal."),
    "short": ("Answer in one word.", "Give short answers.", "Be short.", "Answer as short as you can."),
}


def small_talk(rng: random.Random, persona: Persona) -> Turn:
    """A fixed exchange. The first rows, which people try first, are the most frequent."""
    row = int(rng.random() ** 1.7 * len(_FIXED))
    wordings, answer, think = _FIXED[row]
    answer = answer.replace("{hello}", persona.greeting).replace("{me}", persona.me())
    return Turn(casual(rng, rng.choice(wordings)), answer, think, [answer])


def joke(rng: random.Random) -> Turn:
    """One of a few jokes."""
    return Turn(casual(rng, rng.choice(JOKE_ASKS)), rng.choice(JOKES), "The user wants a joke.")


def unknown(rng: random.Random) -> Turn:
    """A question outside the domain."""
    p, q = rng.sample(w.PEOPLE, 2)
    text = rng.choice(_UNKNOWN).format(
        c=rng.choice(list(w.CAPITALS)), t=rng.choice(w.CITIES), n=rng.choice(w.NOUNS), a=rng.choice(w.ADJECTIVES),
        p=p, q=q, y=rng.randint(1000, 2029),
    )  # fmt: skip
    return Turn(casual(rng, text), UNKNOWN, "I do not know this.", ["do not know"])


# What the user tells: (statement forms, question forms, answer, answer to the statement).
_TELLS = {
    "name": (("My name is {}.", "I am {}.", "my name is {}", "I'm {}.", "Call me {}.", "hi, I am {}",
    "Hello, my name is {}."),
             ("What is my name?", "what is my name", "Who am I?", "Do you know my name?", "what's my name?",
             "Say my name."),
             "Your name is {}.", "Nice to meet you, {}."),
    "age": (("I am {} years old.", "My age is {}.", "i am {} years old"),
            ("How old am I?", "What is my age?", "how old am I"), "You are {} years old.", "I see. You are {}."),
    "city": (("I live in {}.", "I am from {}.", "my home is in {}", "I live in {} now."),
             ("Where do I live?", "where do I live", "What is my city?", "In which city do I live?"),
             "You live in {}.", "{} is a nice place."),
    "pet": (("I have a {}.", "My pet is a {}.", "I have a {} at home."),
            ("What pet do I have?", "What is my pet?", "which animal do I have?"), "You have a {}.",
            "A {} is a good pet."),
    "food": (("My favorite food is {}.", "I like {} the most.", "I love to eat {}."),
             ("What is my favorite food?", "What food do I like?", "which food do I like?"),
             "Your favorite food is {}.", "That is good food."),
    "color": (("My favorite color is {}.", "I like the color {}.", "my favorite color is {}"),
              ("What is my favorite color?", "which color do I like?", "What color do I like?"),
              "Your favorite color is {}.", "That is a nice color."),
    "number": (("My favorite number is {}.", "my lucky number is {}", "My number is {}."),
               ("What is my number?", "what is my favorite number?", "Which number do I like?"),
               "Your number is {}.", "That is a good number."),
    "friend": (("My friend is {}.", "My best friend is {}.", "my friend is called {}"),
               ("Who is my friend?", "What is the name of my friend?", "who is my best friend?"),
               "Your friend is {}.", "It is good to have a friend."),
}  # fmt: skip


def _told_value(rng: random.Random, topic: str, split: str) -> str:
    if topic in ("name", "friend"):
        return rng.choice(w.PEOPLE) if rng.random() < 0.7 else upper_first(w.nonsense(rng, split))
    if topic in ("age", "number"):
        return str(rng.randint(1, 99))
    if topic == "city":
        return rng.choice(w.CITIES) if split == "eval" or rng.random() < 0.8 else upper_first(w.nonsense(rng, split))
    if topic == "pet":
        return rng.choice([a for a in w.ANIMALS if a[0] not in "aeio"])
    return w.any_word(rng, split, w.FOODS if topic == "food" else w.COLORS, 0.15)


def about_user(rng: random.Random, split: str, persona: Persona) -> list:
    """The user tells one to three things, other talk follows, then the questions come."""
    topics = rng.sample(list(_TELLS), rng.choice((1, 1, 2, 2, 3)))
    turns, asks = [], []
    for topic in topics:
        tell, ask, answer, reply = _TELLS[topic]
        value = _told_value(rng, topic, split)
        turns.append(Turn(rng.choice(tell).format(value), reply.format(value), f"The user tells me the {topic}.", []))
        asks.append(Turn(rng.choice(ask), answer.format(value), f"The user told me: {value}.", [value]))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        turns.append(any_turn(rng, split, persona))
    rng.shuffle(asks)
    return turns + asks


def not_told(rng: random.Random) -> Turn:
    """A question about the user when nothing was told; only for a conversation without such facts."""
    ask = _TELLS[rng.choice(list(_TELLS))][1]
    return Turn(rng.choice(ask), "You have not told me.", "The user did not tell me.", ["not told"])


def any_turn(rng: random.Random, split: str, persona: Persona) -> Turn:
    """Small talk, knowledge, the library, a joke or a question that the model cannot answer."""
    if rng.random() < 0.36:
        return library.any_turn(rng, split, persona)
    style = rng.random()
    if style < 0.44:
        return small_talk(rng, persona)
    if style < 0.73:
        return knowledge.turn(rng, split)
    if style < 0.84:
        return knowledge.extra(rng, split)
    if style < 0.88:
        return joke(rng)
    return unknown(rng)
