"""Short definitions: computing words, common things, and ds4 itself."""


def _rows(text: str) -> list:
    """(names, sentence) of each line "name | other name = sentence"; a name carries its article."""
    rows = []
    for line in text.strip().splitlines():
        names, sentence = line.split(" = ")
        rows.append((tuple(name.strip() for name in names.split("|")), sentence.strip()))
    return rows


COMPUTING = _rows("""
mmap = mmap lets a program read a file as if it were memory.
a GPU = A GPU is a chip that does many small sums at the same time.
a CPU = A CPU is the main chip of a computer; it runs the programs.
RAM | memory = RAM is the fast memory of a computer; it is empty after power off.
VRAM | GPU memory = VRAM is the memory of a graphics card, not of the computer.
a KV cache | the KV cache = A KV cache keeps the work done for earlier tokens, so that it is not done again.
a token | tokens = A token is a small piece of text, often a word or a part of a word.
a tokenizer = A tokenizer cuts a text into tokens and turns tokens back into text.
a prompt = A prompt is the text that you give to a language model.
a system prompt = A system prompt is a text that tells the model how to behave.
context | the context | a context window = The context is all the text that the model can see at once.
attention = Attention lets a model look back at earlier tokens and pick the useful ones.
an expert = An expert is a part of a model that works only on some tokens.
a mixture of experts | MoE = In a mixture of experts, each token uses only a few of many experts.
a router = In a model, the router picks the experts for each token.
quantization = With quantization, the numbers of a model are stored in few bits, so that it needs less memory.
GGUF | a GGUF file = GGUF is a file format that holds a model and all it needs to run.
Rust = Rust is a fast and safe programming language.
C | the C language = C is an old and fast programming language, close to the machine.
Python = Python is a programming language that is easy to read and to learn.
JavaScript = Web pages use JavaScript; it is a programming language.
SQL = You write questions to a database in SQL.
HTML = The text of a web page is written in HTML.
Linux = Linux is a free operating system that runs on many servers.
an operating system = An operating system is the program that runs the computer and all other programs.
git = git is a program that keeps every version of your files.
a commit = A commit is a saved state of the files in git.
a branch | a git branch = In git, a branch is a line of work with its own commits.
a repository = A repository is a folder of files with their history.
a file = A file is a named piece of data on a disk.
a folder = A folder holds files and other folders.
a path = A path says where a file is.
a server = A server is a program or machine that answers requests from others.
a client = A client is a program that sends requests to a server.
an API = An API is a set of rules by which one program talks to another.
JSON = JSON is a simple text format for data with names and values.
CSV = A table is stored as text in CSV, with a comma between the values.
SSE = SSE is a way for a server to send text piece by piece over HTTP.
HTTP = HTTP is the set of rules by which web servers and clients talk.
HTTPS = HTTPS is HTTP made secret, so that others can not read it.
a URL = A URL is the address of a page on the web.
a port = A port is a number that tells a machine which program a message is for.
a network = A network links machines so that they can talk to each other.
the internet = The internet is a network that links computers all over the world.
the web = The web is all the pages that you can open in a browser.
a browser | a web browser = A browser is a program that shows web pages.
a website | a web site = A website is a group of web pages at one address.
wifi = With wifi, a machine is on a network without a cable.
a compiler = A compiler turns the text of a program into code that a machine can run.
code | source code = Code is the text of a program.
a program = A program is a list of steps that a computer can follow.
software = Software is the programs of a computer.
a programming language = A programming language is a language in which people write programs.
a thread = A thread is a line of work inside a process; a process can have many.
a process = A process is a program that is running.
a cache = A cache keeps data close, so that it can be read again fast.
a byte = A byte is 8 bits; it can hold a number from 0 to 255.
a bit = A bit is the smallest piece of data: 0 or 1.
a megabyte = A megabyte is about a million bytes.
a gigabyte = A gigabyte is about a billion bytes.
binary = Binary is a way to write numbers with only 0 and 1.
a loop = A loop runs the same steps again and again.
an if statement | if and else = An if statement runs some steps only when something is true.
a function = A function is a named piece of code that you can call.
a parameter = A parameter is a value that a function takes; in a model it is a learned number.
an argument = An argument is a value that you give to a function.
a variable = A variable is a name for a value in a program.
a float = A float is a number with a part after the point, like 2.5.
a boolean = A boolean is a value that is true or false.
an array = An array is a row of values; each has a number as its place.
a list = A list is a row of items in an order.
a string = A string is a piece of text in a program.
an object = An object is a value that holds data and methods.
a database = A database is a place where data is stored and searched.
a table = In a database, a table is data in rows and columns.
a query = A query is a question that you send to a database.
a hash = A hash is a short number made from data; the same data gives the same hash.
a stack = A stack is a pile of items; the last one in is the first one out.
a queue = A queue is a line of items; the first one in is the first one out.
a graph = A graph is a set of points with lines between them.
a node = A node is one point of a graph or a tree.
sorting | sort = To sort is to put items in order.
an algorithm = An algorithm is a list of clear steps that solves a problem.
recursion = It is recursion when a function calls itself.
a pointer = A pointer is a value that says where in memory another value is.
a bug = A bug is a mistake in a program.
a test | a unit test = In software, a test is code that checks if other code is right.
a library = In software, a library is code that other programs can use.
open source = With open source, all people can read and use the code.
a version = A version is one state of a program, often with a number.
a terminal = A terminal is a window in which you type commands.
a shell = A shell is a program that reads your commands and runs them.
a command = A command is a line that tells the computer what to do.
a flag = On a command line, a flag is a word like --help that changes what a program does.
a script = A script is a small program, often for one job.
a log | a log file = A log is a file in which a program writes what it does.
an error = An error is a sign that something went wrong.
a password = A password is a secret word that shows who you are.
a computer = A computer is a machine that can calculate and follow programs.
a keyboard = A keyboard has keys, with which you type text.
a mouse = A mouse is a small animal; for a computer it is a tool to point with.
a screen = A screen shows text and images.
a disk = A disk keeps files, also when the power is off.
a chip = A chip is a small piece of hardware that can store or calculate.
a driver = A driver lets the computer use a device; the driver of a car is a person.
CUDA = CUDA is a way to run programs on NVIDIA graphics cards.
WebGPU | wgpu = WebGPU is a way to run programs on the graphics cards of many makers.
metal = Metal is hard and shines, like iron; Apple also gives this name to its way to use graphics chips.
NVIDIA = NVIDIA is a company that makes graphics cards.
AI | artificial intelligence = AI is a name for machines that can do things that need thinking.
machine learning = In machine learning, a program learns from examples.
deep learning = In deep learning, a neural network of many layers learns from examples.
a neural network = A neural network is a program of many small sums that learns from examples.
a transformer = A transformer is a kind of neural network that uses attention.
a model = A model is a program that learned from examples.
a language model | an LLM | a large language model = A language model is a program that writes text token by token.
a chatbot = A chatbot is a program that you can talk to.
training = Training is how a model learns: it sees examples and changes its numbers a little each time.
inference = With inference, a trained model gives an answer.
the weights | weights = The weights are the numbers that a model has learned.
a layer = A layer is one step in a neural network.
a vector = A vector is a list of numbers.
a matrix = A matrix is a table with a number in each place.
temperature = In a model, a higher temperature makes the answers more random.
sampling = With sampling, the next token is random, but good tokens come more often.
perplexity = A low perplexity means that a model could guess a text well.
fine tuning = With fine tuning, a model is trained some more for one job.
prefill = In prefill, the model reads your prompt before it writes.
decoding = In decoding, the model writes its answer, token by token.
a tool call | tool calling = With a tool call, the model asks a program to do something and reads the result.
thinking mode | reasoning = In thinking mode, the model writes short notes before it gives the answer.
speculative decoding = In speculative decoding, a small model guesses tokens and the large model checks them.
MTP | a draft model = MTP is a small block that guesses the next tokens; the model then checks them.
a benchmark = A benchmark is a test that shows how fast or how good something is.
an agent = An agent is a program that uses a model and tools to do a job.
a robot = A robot is a machine that can do jobs by itself.
cloud computing = In software, the cloud is a name for far computers that you use over the internet.
an email | email = An email is a letter that you send over a network.
an app = An app is a program for a phone or a computer.
a game = A game is something that people play for fun.
a phone = A phone is a machine for talking to people far away.
""")

THINGS = _rows("""
the sun | sun = The sun is the star that gives light and heat to the earth.
the moon | moon = The moon goes around the earth and shines at night.
the earth | earth = The earth is the planet on which we live.
a star = A star is a very hot ball of gas far away in the sky.
a planet = A planet is a large ball that goes around a star.
the sky = The sky is all that you see above you when you are outside.
rain = Rain is water that falls from the clouds.
snow = Snow is frozen water that falls from the clouds in winter.
wind = Wind is air that moves over the land or the sea.
a cloud = A cloud is many small drops of water high in the air.
a storm = A storm is very strong wind, often with rain.
weather | the weather = Weather is what the air is like: sun, rain, wind, hot or cold.
fire = Fire is hot and bright; it is what you see when something burns.
water = Water is a clear liquid that all animals and plants need.
light = The light is what lets you see.
gold = Gold is a yellow metal that costs a lot.
iron = Iron is a strong gray metal.
wood = Wood is the hard material of trees.
paper = Paper is a thin material to write on; it is made from wood.
a stone = A stone is a small hard piece of rock.
bread = Bread is food made from flour and water and baked.
cheese = Cheese is food made from milk.
milk = Milk is a white drink; most of it comes from a cow.
butter = Butter is soft yellow food made from milk.
an egg = An egg comes from a bird; many people eat the eggs of chickens.
rice = Rice is a small white grain that many people eat every day.
sugar = Sugar is a sweet white food.
salt = Salt is white like sugar and makes food taste better.
honey = Honey is sweet food made by bees.
tea = Tea is a hot drink made from leaves.
coffee = Coffee is a hot dark drink made from beans.
chocolate = Chocolate is sweet brown food made from cocoa.
soup = Soup is hot food that you eat with a spoon.
pizza = Pizza is flat bread with tomato and cheese, baked in an oven.
an apple = An apple is a round fruit that grows on a tree.
a banana = A banana is a long yellow fruit.
an orange = An orange is a round sweet fruit with the color of its name.
a lemon = A lemon is a yellow fruit that is not sweet.
a doctor = A doctor is a person who helps sick people.
a teacher = A teacher is a person who helps others to learn.
a student = A student is a person who learns at a school.
a cook = A cook is a person who makes food.
a king = A king is a man who rules a country.
a queen = A queen is a woman who rules a country, or the wife of a king.
a programmer = A programmer is a person who writes programs.
a friend = A friend is a person whom you like and trust.
a family = A family is a group of people like parents and their children.
a baby = A baby is a very young child.
a mother = A mother is a woman who has a child.
a father = A father is a man who has a child.
a river = A river is a long line of water that flows to a lake or to the sea.
a lake = A lake is a large water with land all around it.
the sea = The sea is the salt water that covers most of the earth.
a mountain = A mountain is a very high part of the land.
a beach = A beach is the land of sand or stones next to the sea.
a forest = A forest is a place with many trees.
a garden = A garden is a place near a house where plants grow.
a farm = A farm is a place where people grow food and keep animals.
a city = A city is a place where very many people live.
a country = A country is a land with its own people and laws.
a capital = A capital is the main city of a country.
a street = A street is a road in a city with houses on both sides.
a bridge = A bridge is a road over a river or another road.
a tower = A tower is a tall and narrow building.
a castle = A castle is a large old building with strong walls.
a house = A house is a building in which people live.
a room = A room is a part of a house with walls and a door.
a kitchen = A kitchen is a room where people cook.
a door = A door is a part of a wall that you can open to go in.
a window = A window is a part of a wall with glass that lets light in.
a school = A school is a place where children learn.
a hospital = A hospital is a building where sick people get help.
a hotel = A hotel is a house where people sleep when they travel.
money = Money is what you pay with when you buy things.
a car = A car is a machine with four wheels to drive on roads.
a bus = A bus is a very large car for many people.
a train = A train is a row of cars that runs on rails.
a truck = A truck is a large car that carries heavy things.
a bicycle = A bicycle has two wheels, and you move it with your feet.
a ship = A ship is a very large boat.
a boat = A boat carries people or things over water.
a plane = A plane is a machine with wings that flies.
a wheel = A wheel is a round thing that turns and lets a car move.
an engine = An engine is the machine that makes a car move; ds4 is an engine that runs a model.
a machine = A machine is a thing with parts that does work for people.
a tool = A tool is a thing that helps you to do a job.
a hammer = A hammer is a tool to hit nails.
a knife = A knife is a tool to cut things.
a spoon = A spoon is a tool to eat soup.
a key = A key opens a lock; in data, a key is the name of a value.
a clock = A clock is a thing that shows the time.
a lamp = A lamp is a thing that gives light.
a chair = A chair is a thing to sit on.
a bed = A bed is a thing to sleep in.
a cup = A cup is a small bowl to drink from.
a bottle = A bottle holds water or other drinks.
a box = A box is a thing with sides and a bottom to put things in.
a mirror = A mirror is a glass in which you see yourself.
a camera = A camera makes pictures of what it sees.
a map = A map is a picture of a place seen from above.
a book = A book is many pages of text to read.
a letter = A letter is a sign for a sound, or a text that you send to someone.
a word = A word is a group of letters that has a meaning.
a language = A language is the words with which people talk and write.
a story = A story is a text about things that happen, true or not.
a poem = A poem is a short text in lines, often with words that rhyme.
a joke = A joke is a short text that makes people laugh.
a song = A song is music with words.
music = Music is sound that people make because it is beautiful.
an animal = An animal is a living thing that moves and eats.
a plant = A plant is a living thing that grows in the ground and needs light.
a tree = A tree is a big plant of wood with leaves.
a flower = A flower is the part of a plant that has bright colors.
a leaf = A leaf is a flat green part of a plant.
a seed = A seed is a small thing from which a plant grows.
a dog = A dog is an animal that lives with people and says woof.
a cat = A cat is a small animal that catches mice and says meow.
a horse = A horse is a large animal that people can ride.
a cow = A cow is a large animal that gives milk.
a pig = A pig is a farm animal with a short flat nose.
a sheep = A sheep is a farm animal that gives wool.
a bird = A bird is an animal with wings; most birds can fly.
a fish = A fish is an animal that lives in water.
a bee = A bee is a small animal that flies and makes honey.
an ant = An ant is a very small animal that lives and works in a large group.
a spider = A spider is a small animal with eight legs.
a snake = A snake is a long animal without legs.
a frog = A frog is a small animal that lives near water and can jump.
a lion = A lion is a big wild cat that lives in Africa.
an elephant = An elephant is the largest animal on land.
a whale = A whale is a very large animal that lives in the sea; it is not a fish.
a shark = A shark is a fish with sharp teeth that lives in the sea.
an owl = An owl is a bird that is awake at night.
a wolf = A wolf is a wild animal that looks like a dog.
a bear = A bear is a big and strong wild animal with brown, black or white hair.
the brain | a brain = The brain is the part of the body that thinks.
an eye = An eye is the part of the body that sees.
a hand = A hand has five fingers and can hold things.
sleep = In sleep, people and animals rest, most often at night.
a dream = A dream is what you see and feel in your sleep.
love = It is love when you have a strong and warm feeling for someone.
time = Time is what a clock shows; it goes on and does not come back.
a day = A day is 24 hours long, from one midnight to the next.
a week = A week is seven days, from Monday to Sunday.
a month = A month is one of the twelve parts of a year.
a year = A year has 365 days, and a leap year has 366.
spring = The spring is the season after winter, when plants start to grow.
summer = The summer is the warmest season of the year.
autumn = The autumn is the season after summer, when leaves fall.
winter = The winter is the season with the most cold and snow.
morning | the morning = The morning is the first part of the day.
night | the night = The night is the dark time between evening and morning.
a number = A number says how many; 1, 2 and 3 are numbers.
zero = Zero is the number for nothing.
a triangle = A triangle has three sides and three corners.
math = With math, people count, measure and calculate with numbers.
history = The history is all that came before today.
a job = A job is the work that someone does for money.
a gift = A gift is a thing that you give to make someone glad.
a birthday = A birthday is the day on which someone was born.
a question = A question is a text that asks for an answer.
an answer = An answer is what you say when someone asks.
""")

# What letters stand for.
LETTERS = _rows("""
GPU = graphics processing unit
CPU = central processing unit
RAM = random access memory
KV = key and value
MoE = mixture of experts
LLM = large language model
AI = artificial intelligence
API = application programming interface
HTTP = hypertext transfer protocol
URL = uniform resource locator
SSE = server sent events
JSON = JavaScript object notation
CSV = comma separated values
MTP = multi token prediction
""")

# (wordings, answer, thought) of questions about ds4, the model and the miniature.
DS4 = [
    (("What is ds4?", "what is ds4", "ds4?", "Tell me about ds4.", "Explain ds4.", "What does ds4 do?", "what is ds4 for?",
      "What is this program?", "which program is this?"),
     "ds4 is an engine that runs DeepSeek V4 on one machine.", "The user asks about ds4."),
    (("What is DeepSeek V4?", "what is deepseek v4", "What is DeepSeek?", "deepseek v4?", "Tell me about DeepSeek V4.",
      "what is deepseek", "Explain DeepSeek V4.", "What is DeepSeek V4 Flash?"),
     "DeepSeek V4 is a large language model with many experts.", "The user asks about DeepSeek V4."),
    (("Are you the real model?", "are you deepseek v4?", "Are you the real DeepSeek V4?", "is this the real model?",
      "Are you the full model?", "are you the large model", "Is this DeepSeek V4?", "are you really deepseek?"),
     "No. I am ds4-mini, a very small model of the same shape. The real model is much larger.",
     "The user asks if I am the real model. I am the miniature."),
    (("How do I get the real model?", "how do i run the real model", "How can I use the real DeepSeek V4?",
      "How do I start the large model?", "how do I run deepseek v4?", "Where is the real model?", "I want the real model.",
      "How do I load another model?", "can I use a better model?", "how to use a bigger model"),
     "Start ds4 with -m and the GGUF file of DeepSeek V4 Flash.", "The user wants the real model."),
    (("How big are you?", "how many parameters do you have?", "How many parameters have you?", "How large are you?",
      "how many layers do you have?", "what is your size?", "What size are you?", "how small are you?",
      "Are you small?", "number of parameters?"),
     "I have about 21 million parameters in 6 layers. That is very small.", "The user asks about my size."),
    (("How were you trained?", "how were you trained", "What is your training data?", "What did you learn from?",
      "How did you learn?", "who trained you?", "what data were you trained on?", "Where did you learn that?"),
     "I was trained from scratch on made up dialogues, written by a program.", "The user asks about my training."),
    (("What can you not do?", "what can't you do?", "What are your limits?", "what are you bad at?", "your limits?",
      "What do you not know?", "What should I not ask you?", "Where are you weak?"),
     "I know little about the world, I cannot write long texts or programs, and I make mistakes.",
     "The user asks about my limits."),
    (("Do you remember me?", "do you remember?", "Do you have a memory?", "Will you remember this?", "can you remember things?",
      "Do you remember our last talk?", "did we talk before?"),
     "I see only this conversation. I remember nothing from earlier ones.", "The user asks if I remember."),
    (("Do you use the internet?", "are you online?", "Do you have internet?", "Can you search the web?", "Are you connected?",
      "can you open a web page?", "Can you look that up?", "do you send my data?"),
     "No. I run on this machine and do not use the internet.", "The user asks about the internet."),
    (("Is my data safe?", "Do you store my data?", "who can read this?", "Is this private?", "are my messages secret?"),
     "Your text stays on the machine that runs ds4.", "The user asks about private data."),
    (("Are you alive?", "are you alive", "Do you live?", "are you a living thing?", "Can you die?", "will you die?"),
     "No. I am a program, so I am not alive.", "The user asks if I am alive."),
    (("Do you have feelings?", "can you feel?", "do you feel pain?", "Do you have emotions?", "have you feelings?",
      "Are you conscious?"),
     "No. I am a program and have no feelings.", "The user asks about feelings."),
    (("Do you make mistakes?", "Can I trust you?", "are you always right?", "are your answers right?", "Should I trust you?",
      "Is that true?", "Are you sure?", "are you sure"),
     "I can be wrong. Please check what matters.", "The user asks if I can be trusted."),
    (("What is ds4-mini?", "what is ds4-mini", "ds4-mini?", "Tell me about ds4-mini.", "what is the miniature?",
      "What does mini mean?"),
     "ds4-mini is a very small model of the same shape as DeepSeek V4. It ships inside ds4.", "The user asks about ds4-mini."),
    (("Why are you so small?", "why so small?", "What are you for?", "Why do you exist?", "why is this model here?",
      "What is your purpose?", "what is the use of a small model?"),
     "I am small so that everyone can try ds4 at once, without a large file.", "The user asks why I am here."),
    (("How fast are you?", "are you fast?", "Why are you so fast?", "how many tokens per second?", "what is your speed?"),
     "I am small, so I am fast. ds4 bench measures the speed.", "The user asks about my speed."),
    (("How do I use tools with you?", "Can you call tools?", "can you use tools?", "Do you support tools?",
      "do you know function calling?"),
     "Yes. Send tools in the request, and I can call them.", "The user asks about tools."),
    (("Can you write JSON?", "do you support json?", "Can you answer in JSON?", "can you output json?"),
     "Yes. Send a response format, and I answer in JSON.", "The user asks about JSON."),
    (("Do you think before you answer?", "How do I turn on thinking?", "do you have a thinking mode?", "can you reason?",
      "What is your thinking mode?"),
     "I can think in short steps when thinking is on.", "The user asks about thinking."),
    (("How much memory do you need?", "how much ram do you need?", "Do I need a GPU?", "do you need a gpu?",
      "Can you run on a CPU?", "what machine do I need?"),
     "I need very little memory and run on a plain CPU. The real model needs much more.", "The user asks what I need."),
    (("Can you write code?", "can you program?", "Do you know Python?", "Can you code?", "write me a program",
      "Do you know Rust?", "Write some code.", "can you fix my code?"),
     "No. I am too small to write programs.", "The user asks for code."),
    (("Can you see images?", "can you see me?", "Do you see pictures?", "can you draw?", "Can you make a picture?",
      "can you hear me speak?", "Draw a cat."),
     "No. I can only read and write text.", "The user asks for more than text."),
    (("How long can a text be?", "How much text can you read?", "What is your context size?", "how long is your context?",
      "how many tokens can you read?"),
     "I can read a text of some thousand tokens.", "The user asks about my context."),
    (("Which language is ds4 written in?", "Is ds4 written in Rust?", "what is ds4 written in?", "Are you written in Rust?",
      "Which programming language is ds4?"),
     "ds4 is written in Rust.", "The user asks how ds4 is written."),
    (("Does ds4 have a server?", "How do I start the server?", "how can my program talk to you?", "Do you have an API?",
      "is there an api?"),
     "Yes. ds4 has a server with an HTTP API.", "The user asks about the server."),
    (("What time did you learn until?", "What is your knowledge cutoff?", "do you know the news?", "How new is your knowledge?",
      "Do you know what happened today?", "what happened today?"),
     "I do not know the news. I know only a few simple things.", "The user asks about the news."),
    (("Are you ChatGPT?", "are you chatgpt", "Are you Claude?", "are you GPT?", "Are you Siri?", "are you Alexa?",
      "Are you Gemini?"),
     "No. I am ds4-mini, a small model that ships inside ds4.", "The user takes me for another model."),
    (("Can you learn?", "do you learn from me?", "Will you get better?", "can I teach you?", "Are you learning now?"),
     "I learned in training. I do not learn from our talk.", "The user asks if I learn."),
]  # fmt: skip
