"""Writes questions.jsonl of the general ability set, version 1, from the lists below.

    python make_questions.py

Everything in here was written for this project. Wrong choices come from other items of the same
list; which ones, and where the right one stands, depends on a hash of the prompt, so that adding
an item leaves the others as they were. The file that is written is the set: it is frozen by a
test, and this script is kept to show where it came from.
"""

import hashlib
import json
import pathlib


def draw(prompt, use, n):
    """A number below n that depends on the prompt and what it is for."""
    digest = hashlib.blake2b(f"general-v1|{use}|{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % n


def question(kind, prompt, truth, others, wrong=3):
    """A question with `wrong` of the others, shuffled."""
    others = sorted(set(others) - {truth}, key=lambda o: draw(prompt, f"wrong|{o}", 2**63))
    choices = others[:wrong]
    assert len(choices) == wrong, prompt
    answer = draw(prompt, "answer", wrong + 1)
    choices.insert(answer, truth)
    return {"kind": kind, "prompt": prompt, "choices": [f" {c}" for c in choices], "answer": answer}


def lines(text):
    return [line.strip() for line in text.strip().splitlines()]


def pairs(text):
    return [tuple(part.strip() for part in line.split("|")) for line in lines(text)]


def either(kind, rows):
    """Two choices, of which the first is right."""
    for prompt, right, wrong in rows:
        yield question(kind, prompt, right, [wrong], wrong=1)


OPPOSITES = """hot cold; big small; tall short; fast slow; light dark; open closed; early late; full empty;
hard soft; heavy light; high low; happy sad; old young; new old; rich poor; strong weak; wet dry; wide narrow;
clean dirty; good bad; loud quiet; long short; true false; right wrong; thick thin; alive dead; awake asleep;
deep shallow; easy difficult; first last; near far; north south; east west; up down; left right; inside outside;
day night; love hate; win lose; buy sell; push pull; start stop; give take; remember forget; arrive leave;
laugh cry; succeed fail; always never; before after; above below; more less; begin end; summer winter; war peace;
question answer; friend enemy; accept reject; increase decrease; sharp blunt; smooth rough"""

# Words so near each other that one would do for the other.
NEAR = [set(group.split()) for group in """stop end; small short narrow thin low light; weak soft; sad bad poor wrong;
bad wrong false dirty; dark night; lose fail; down below low; cold winter; hate enemy; take buy; quiet slow soft;
dead asleep; closed full; far outside; shallow low; outside inside; before last early; after late; sharp rough;
old dark; less decrease small; more increase; give sell; push leave; difficult strong""".split(";")]

CAPITALS = """France Paris; Germany Berlin; Italy Rome; Spain Madrid; Portugal Lisbon; England London;
Ireland Dublin; Scotland Edinburgh; Russia Moscow; Japan Tokyo; China Beijing; India Delhi; Egypt Cairo;
Greece Athens; Turkey Ankara; Austria Vienna; Hungary Budapest; Poland Warsaw; Sweden Stockholm; Norway Oslo;
Denmark Copenhagen; Finland Helsinki; Belgium Brussels; Canada Ottawa; Cuba Havana; Peru Lima; Chile Santiago;
Kenya Nairobi; Iraq Baghdad; Iran Tehran; Australia Canberra; Thailand Bangkok; Vietnam Hanoi; Ukraine Kyiv;
Iceland Reykjavik; Romania Bucharest; Bulgaria Sofia; Croatia Zagreb; Serbia Belgrade; Indonesia Jakarta;
Malaysia Kuala_Lumpur; Philippines Manila; Pakistan Islamabad; Afghanistan Kabul; Syria Damascus;
Lebanon Beirut; Ghana Accra; Nigeria Abuja; Ethiopia Addis_Ababa; Venezuela Caracas; Colombia Bogotá;
Ecuador Quito; Uruguay Montevideo; Argentina Buenos_Aires; Jamaica Kingston; Nepal Kathmandu; Qatar Doha"""

KINDS = """bird: robin eagle sparrow penguin owl parrot
fish: salmon tuna trout shark cod
fruit: banana apple peach mango pear
vegetable: carrot cabbage spinach broccoli onion
tool: hammer screwdriver wrench saw chisel
metal: iron copper silver gold zinc
color: red blue green yellow purple
disease: malaria measles tuberculosis influenza cholera
country: Brazil Mexico Sweden Kenya Vietnam
insect: ant beetle butterfly mosquito wasp
tree: oak pine maple birch willow
musical instrument: piano violin trumpet flute guitar"""

PAST = """walk walked; go went; eat ate; write wrote; sing sang; run ran; see saw; buy bought; think thought;
teach taught; bring brought; catch caught; drive drove; fly flew; swim swam; speak spoke; break broke; choose chose;
give gave; take took; come came; begin began; drink drank; grow grew; know knew; throw threw; wear wore; tell told;
sell sold; feel felt; keep kept; leave left; lose lost; meet met; sleep slept; build built; send sent; spend spent"""

PLURALS = """child children; man men; woman women; foot feet; tooth teeth; mouse mice; goose geese; knife knives;
leaf leaves; wolf wolves; box boxes; city cities; baby babies; house houses; book books; potato potatoes; wife wives;
church churches"""

# Subject and verb agree although another noun stands between them.
AGREEMENT = """The keys to the old cabinet | are on the kitchen table. | is on the kitchen table.
The key to the old cabinets | is on the kitchen table. | are on the kitchen table.
The dogs that belong to my neighbor | bark every night. | barks every night.
The dog that belongs to my neighbors | barks every night. | bark every night.
The pictures on the wall | were painted by her father. | was painted by her father.
The picture on the walls | was painted by her father. | were painted by her father.
The teachers at this school | work very hard. | works very hard.
The teacher of these children | works very hard. | work very hard.
The roads to the village | are covered with snow. | is covered with snow.
The road to the mountains | is covered with snow. | are covered with snow.
The books about the war | have been translated into English. | has been translated into English.
The book about the wars | has been translated into English. | have been translated into English.
The farmers near the river | grow rice and beans. | grows rice and beans.
The farmer near the hills | grows rice and beans. | grow rice and beans.
The windows of the house | were open all night. | was open all night.
The window of the rooms | was open all night. | were open all night.
The boys who sit next to the girl | like to draw. | likes to draw.
The boy who sits next to the girls | likes to draw. | like to draw.
The reports from the office | have not arrived yet. | has not arrived yet.
The report from the offices | has not arrived yet. | have not arrived yet.
The cars behind the truck | move slowly. | moves slowly.
The car behind the trucks | moves slowly. | move slowly.
The birds in the tree | sing before sunrise. | sings before sunrise.
The bird in the trees | sings before sunrise. | sing before sunrise.
The answers to the question | are printed at the back of the book. | is printed at the back of the book.
The answer to the questions | is printed at the back of the book. | are printed at the back of the book.
The players on the team | were tired after the game. | was tired after the game.
The captain of the players | was tired after the game. | were tired after the game.
The letters from my aunt | make me happy. | makes me happy.
The letter from my cousins | makes me happy. | make me happy.
The shops along the street | close at six. | closes at six.
The shop between the offices | closes at six. | close at six.
The students in the class | have finished the test. | has finished the test.
The student with the red shoes | has finished the test. | have finished the test.
The ships in the harbor | carry grain and coal. | carries grain and coal.
The ship behind the islands | carries grain and coal. | carry grain and coal.
The flowers in the garden | need water every day. | needs water every day.
The garden with the flowers | needs water every day. | need water every day.
The doctors in this hospital | know what they are doing. | knows what they are doing.
The leaves on the tree | turn yellow in autumn. | turns yellow in autumn.
The price of the tickets | was too high for us. | were too high for us.
The prices of the ticket | were too high for us. | was too high for us.
The color of the walls | is a pale green. | are a pale green.
The sound of the bells | wakes the whole village. | wake the whole village.
The sounds of the city | keep him awake. | keeps him awake.
The man with the dogs | lives next door. | live next door.
The men with the dog | live next door. | lives next door.
The results of the study | show that sleep is important. | shows that sleep is important.
The result of the studies | shows that sleep is important. | show that sleep is important.
The bridge over the rivers | was built a century ago. | were built a century ago.
The bridges over the river | were built a century ago. | was built a century ago.
The mother of the twins | is a nurse. | are a nurse."""

# Pronouns, determiners and the words that go with some others only.
GRAMMAR = """Mary looked at | herself in the mirror. | himself in the mirror.
John looked at | himself in the mirror. | herself in the mirror.
The girls hurt | themselves while climbing the fence. | herself while climbing the fence.
My father made | himself a cup of tea. | herself a cup of tea.
My mother made | herself a cup of tea. | himself a cup of tea.
The king asked | himself what to do next. | themselves what to do next.
The actress taught | herself to speak French. | himself to speak French.
We enjoyed | ourselves at the party. | themselves at the party.
The children dressed | themselves before breakfast. | himself before breakfast.
I bought | myself a new coat. | ourselves a new coat.
She has lived here | since 1995. | for 1995.
He has been waiting | for three hours. | since three hours.
There are not | many people in the room. | much people in the room.
There is not | much water in the bottle. | many water in the bottle.
This | book is mine. | books is mine.
These | books are mine. | book are mine.
She is taller | than her brother. | as her brother.
He is as tall | as his sister. | than his sister.
It is the most | interesting story I know. | interestinger story I know.
She speaks English very | well. | good.
He does not | like coffee. | likes coffee.
She can | swim across the lake. | swims across the lake.
They want | to go home. | going home to.
He enjoys | reading in bed. | to reading in bed.
I am interested | in history. | on history.
They arrived | at the station too late. | to the station too late.
She is afraid | of spiders. | from spiders.
He is good | at chess. | in the chess of.
We depend | on the weather. | of the weather.
I have never | seen the sea. | saw the sea.
He was | born in a small town. | bear in a small town.
The letter was | written by a child. | wrote by a child.
The window was | broken by the storm. | broke by the storm.
If I had known, I would have | told you. | tell you.
If it rains tomorrow, we will | stay at home. | stayed at home.
She asked me where | I lived. | did I live.
I do not know what | he wants. | does he want.
Neither of them | knows the answer. | know not the answer.
Nobody has | ever seen it. | never seen it.
He hardly | ever goes out. | never goes out.
An old | man opened the door. | men opened the door.
She ate | an apple. | a apple.
He waited for half | an hour. | a hour.
The sun | rises in the east. | rise in the east.
Yesterday we | went to the market. | go to the market.
Tomorrow we | will go to the market. | went to the market.
The man | who lives here is a baker. | which lives here is a baker.
Give the book to | me. | I.
Between you and | me, he is wrong. | they, he is wrong.
Whose | bag is this? | is bag this?
How many | apples did you buy? | apple did you buy?
She made him | wash the dishes. | to washing the dishes."""

# What usually happens next; wrong ends are those of other lines.
ENDINGS = """She put the bread in the toaster and waited for it to | turn brown.
It was raining hard, so he opened his | umbrella.
The baby was tired and began to | cry.
He was thirsty, so he drank a glass of | water.
She turned on the lamp because the room was too | dark.
The dog wagged its | tail.
To open the locked door, he took out his | key.
The farmer milked the | cows.
He brushed his teeth and went to | bed.
She blew out the candles on her birthday | cake.
They built a fire to keep themselves | warm.
The pilot landed the | plane.
The doctor listened to the patient's | heart.
We bought tickets and took our seats in the | theater.
In winter the lake is covered with | ice.
He forgot his watch and asked a stranger for the | time.
She washed the dirty dishes in the kitchen | sink.
The hens laid a dozen | eggs.
The mailman put the letters in the | mailbox.
He cut the paper with a pair of | scissors.
The students raised their hands to ask a | question.
The fisherman pulled up his | net.
The cat chased the | mouse.
She planted seeds in the | garden.
The judge sent the thief to | prison.
The carpenter hit the nail with a | hammer.
The king wore a golden | crown.
Bees fly from flower to flower and make | honey.
The ship sailed across the | ocean.
He read the news in the morning | newspaper.
The clock struck twelve and it was | midnight.
The soldiers marched into | battle.
She looked up the word in the | dictionary.
The bird built its nest in a | tree.
He climbed to the top of the | mountain.
The chef tasted the | soup.
The little boy kicked the | ball.
The bride wore a white | dress.
The police officer arrested the | thief.
The sky was clear, and at night we could see the | stars.
The train stopped at the | station.
The teacher wrote the word on the | blackboard.
She was cold, so she put on a warm | coat.
The orchestra played beautiful | music.
He put a stamp on the | envelope.
The spider caught a fly in its | web.
The painter dipped the brush in the | paint.
The tailor sewed on the missing | button.
The snow melted when the weather grew | warmer.
The astronauts flew to the | moon.
He paid for the bread and the clerk gave him his | change.
The children made a man out of | snow."""

# What things are for, where they are and what they are like.
SENSE = """A knife is used to | cut food.
A pen is used to | write letters.
A broom is used to | sweep the floor.
A key is used to | open a lock.
A clock is used to | tell the time.
A telescope is used to | look at the stars.
A thermometer is used to | measure temperature.
An oven is used to | bake bread.
A needle is used to | sew clothes.
A camera is used to | take photographs.
A shovel is used to | dig holes.
A comb is used to | arrange hair.
A bed is used to | sleep.
A towel is used to | dry the body.
An umbrella is used to | keep off the rain.
A refrigerator is used to | keep food cold.
A ruler is used to | draw straight lines.
A boat is used to | cross the water.
A fishing rod is used to | catch fish.
A microscope is used to | see very small things.
People who are sick go to see a | doctor.
People who want to borrow books go to a | library.
People who want to pray go to a | church.
People who want to see lions and elephants go to a | zoo.
People who want to put their money in a safe place go to a | bank.
People who want their teeth looked after go to a | dentist.
People who want to buy bread go to a | bakery.
People who want to catch a plane go to an | airport.
The person who puts out fires is a | firefighter.
The person who flies a plane is a | pilot.
The person who teaches children is a | teacher.
The person who grows crops is a | farmer.
The person who writes books is an | author.
The person who takes care of sick people in a hospital is a | nurse.
The person who repairs water pipes is a | plumber.
The person who cuts hair is a | barber.
The animal that says meow is the | cat.
The animal that gives us wool is the | sheep.
The animal that gives us milk is the | cow.
The animal with a very long neck is the | giraffe.
The animal with a trunk is the | elephant.
The animal that hops and carries its young in a pouch is the | kangaroo.
The animal that makes honey is the | bee.
The animal that spins a web is the | spider.
The part of the body that we see with is the | eye.
The part of the body that we hear with is the | ear.
The part of the body that we smell with is the | nose.
The part of the body that pumps blood is the | heart.
The season after winter is | spring.
The frozen form of water is | ice.
The star that gives us light by day is the | sun.
The planet on which we live is | Earth."""

# A text, and a question that it answers. Names and things change places.
PEOPLE = ["Tom", "Anna", "Paul", "Lucy", "Mark", "Jane", "Peter", "Emma"]
READING = [
    ("has a {} ball", "The ball of {} is", ["red", "blue", "green", "yellow", "black", "white"]),
    ("lives in {}", "The city where {} lives is", ["London", "Paris", "Rome", "Berlin", "Madrid", "Boston"]),
    ("works as a {}", "The job of {} is", ["teacher", "farmer", "doctor", "lawyer", "painter", "baker"]),
    ("bought a {}", "The thing that {} bought is a", ["hat", "lamp", "chair", "book", "bicycle", "clock"]),
    ("likes to eat {}", "The favorite food of {} is", ["rice", "soup", "pizza", "cheese", "pasta", "fish"]),
    ("was born in {}", "The month in which {} was born is", ["May", "June", "March", "July", "April", "August"]),
    ("plays the {}", "The instrument that {} plays is the", ["piano", "violin", "drums", "guitar", "flute", "harp"]),
    ("has a pet {}", "The pet of {} is a", ["dog", "cat", "rabbit", "horse", "parrot", "goldfish"]),
]


def words(text):
    """Pairs of words parted by semicolons; an underscore is a space."""
    items = [item.split() for item in text.replace("\n", " ").split(";")]
    return [(a.replace("_", " "), b.replace("_", " ")) for a, b in items]


def make():
    opposites = words(OPPOSITES)
    for word, truth in opposites:
        near = {truth, word} | {b for a, b in opposites if a == word} | {a for a, b in opposites if b == word}
        near |= set().union(*(group for group in NEAR if truth in group))
        others = [b for _, b in opposites if b not in near]
        yield question("opposites", f"Hot is the opposite of cold. The opposite of {word} is", truth, others)

    capitals = words(CAPITALS)
    for country, truth in capitals:
        yield question("capitals", f"The capital of {country} is", truth, [b for _, b in capitals])

    kinds = [line.split(": ") for line in lines(KINDS)]
    for kind, things in kinds:
        for thing in things.split():
            # A mango is a tree as well, gold a color, and a beetle a kind of hammer.
            also = {"fruit": "tree vegetable", "vegetable": "fruit", "metal": "color", "tree": "fruit", "insect": "tool"}
            also = also.get(kind, "")
            others = [other for other, _ in kinds if other not in also.split()]
            a = "" if kind in ("metal", "disease", "country", "color") else "An " if thing[0] in "aeiou" else "A "
            subject = f"{a}{thing}" if a else thing[0].upper() + thing[1:]
            yield question("kinds", f"{subject} is a kind of" if kind != "country" else f"{subject} is the name of a", kind, others)

    digits = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    sums = sorted(digits, key=lambda ab: draw("sums", str(ab), 2**63))
    sums = [(a, b) for a, b in sums if (a, b) not in [(2, 2), (5, 1)]][:30]
    rests = sorted(digits, key=lambda ab: draw("rests", str(ab), 2**63))
    rests = [(a, b) for a, b in rests if a > b and (a, b) not in [(4, 2), (6, 5)]][:30]
    for a, b, plus in [(a, b, True) for a, b in sums] + [(a, b, False) for a, b in rests]:
        c = a + b if plus else a - b
        sign = "+" if plus else "-"
        shots = "2 + 2 = 4\n5 + 1 = 6\n" if plus else "4 - 2 = 2\n6 - 5 = 1\n"
        others = [str(o) for o in range(max(0, c - 4), c + 5)]
        yield question("arithmetic", f"{shots}{a} {sign} {b} =", str(c), others)

    yield from either("agreement", pairs(AGREEMENT))
    yield from either("grammar", pairs(GRAMMAR))

    past, plurals = words(PAST), words(PLURALS)
    for word, truth in past:
        regular = word + ("d" if word.endswith("e") else "ed")
        others = [word + "ing", word + ("es" if word == "go" else "s"), regular, word + "ly"]
        yield question("forms", f"Today I {word}. Yesterday I", truth, others)
    for word, truth in plurals:
        others = [word, word + "s", word + "es", word + "en"]
        yield question("forms", f"Here is one {word}. There are two", truth, others)

    for kind, text in (("endings", ENDINGS), ("sense", SENSE)):
        items = pairs(text)
        for prompt, truth in items:
            # The first words say what form an end must have.
            like = [t for p, t in items if kind == "endings" or p.split()[:2] == prompt.split()[:2]]
            if len(set(like)) < 8:
                like = [t for p, t in items if " " not in t]
            if " is used to" in prompt:
                like = [t for p, t in items if " is used to" in p]
            yield question(kind, prompt, truth, like)

    days = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
    months = "January February March April May June July August September October November December".split()
    numbers = "one two three four five six seven eight nine ten eleven twelve".split()
    letters = [chr(65 + i) for i in range(26)]
    for row, at in [(days, range(3, 7)), (months, range(3, 12)), (numbers, range(3, 12)), (letters, range(3, 26, 2))]:
        for i in at:
            yield question("sequences", ", ".join(row[i - 3 : i]) + ",", row[i], row)
    for step in (1, 2, 5, 10):
        for start in (1, 2, 4, 10, 20, 30) if step != 10 else (10, 20, 30, 100):
            row = [start + step * i for i in range(5)]
            others = [str(row[4] + d) for d in (-3, -2, -1, 1, 2, 3, 4, 7, 11)]
            yield question("sequences", ", ".join(map(str, row[:4])) + ",", str(row[4]), others)

    for n in range(56):
        says, asks, things = READING[n % len(READING)]
        prompt = f"reading {n}"
        people = sorted(PEOPLE, key=lambda p: draw(prompt, p, 2**63))[:3]
        chosen = sorted(things, key=lambda t: draw(prompt, t, 2**63))[:4]
        story = " ".join(f"{p} {says.format(t)}." for p, t in zip(people, chosen))
        who = draw(prompt, "who", 3)
        yield question("reading", f"{story} {asks.format(people[who])}", chosen[who], chosen)


rows = list(make())
seen = set()
for row in rows:
    assert row["prompt"] not in seen, row["prompt"]
    seen.add(row["prompt"])
    assert len(set(row["choices"])) == len(row["choices"]), row
path = pathlib.Path(__file__).with_name("questions.jsonl")
path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
counts = {}
for row in rows:
    counts[row["kind"]] = counts.get(row["kind"], 0) + 1
print(counts, path.stat().st_size)
