"""The forms and words of random sentences: rules in which `{name}` stands for a random choice of the rule `name`."""


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split("|"))


def _forms(names: tuple[str, ...], table: str) -> dict[str, tuple[str, ...]]:
    """Makes a rule of each column of a table of words."""
    return dict(zip(names, zip(*(row.split() for row in table.split("|")), strict=True), strict=True))


LEXICON: dict[str, tuple[str, ...]] = {
    "first": words(
        "Alice Andrew Anna Arthur Ben Carol Charles Clara Daniel David Diana Edward Ella Emily Emma Frank George Grace"
        " Hannah Harry Helen Henry Isabel Jack James Jane Julia Karen Kate Laura Leo Lily Lucy Maria Mark Martin Mary"
        " Michael Nina Nora Oliver Oscar Paul Peter Rachel Robert Rose Ruth Sam Sarah Simon Sophie Susan Thomas Victor"
        " Walter William"
    ),
    "last": words(
        "Adams Baker Bennett Brown Carter Clark Collins Cooper Davis Evans Fisher Foster Harris Hughes Jackson Johnson"
        " Kelly Lewis Miller Morgan Parker Roberts Smith Taylor Turner Walker Watson Wilson Wright Young"
    ),
    "city": words(
        "London Paris Berlin Rome Madrid Vienna Dublin Boston Chicago Denver Dallas Seattle Toronto Sydney Oslo Lisbon"
        " Athens Prague Warsaw Geneva Milan Cairo Tokyo Oxford Cambridge Manchester Bristol Houston Atlanta Portland"
        " Montreal Amsterdam Helsinki Stockholm Brussels Venice"
    ),
    "country": words(
        "France Spain Italy Germany Ireland Scotland Portugal Greece Norway Sweden Poland Canada Mexico Brazil Japan"
        " India Egypt Kenya Australia Austria Belgium Denmark Iceland Morocco Peru Turkey"
    ),
    "language": words("English French Spanish Italian German Greek Polish Japanese Danish Swedish Turkish"),
    "room": words("kitchen bathroom bedroom hall garden garage attic cellar office library dining-room"),
    "spot": words("table shelf desk chair sofa floor bench carpet counter windowsill piano fridge"),
    "thing": words(
        "lamp clock mirror blanket pillow basket bucket ladder hammer radio camera telephone computer printer book"
        " letter newspaper picture map notebook pencil candle bottle box parcel key umbrella suitcase bag wallet ring"
        " ticket toy ball guitar kettle bowl vase brush rope torch battery envelope stamp"
    ),
    "fixture": words("window door gate roof fence wall ceiling oven heater curtain drawer cupboard tap stove"),
    "material": words("wooden glass plastic metal paper leather silver golden cotton stone"),
    "colour": words("red blue green white black yellow brown grey orange purple pink"),
    "look": words(
        "old new small large heavy light broken clean dirty pretty simple strange round square narrow wide expensive"
        " cheap beautiful empty modern ancient tiny enormous useful ordinary"
    ),
    "mood": words(
        "happy sad tired hungry thirsty angry busy ready late nervous proud quiet careful worried pleased surprised"
        " bored lonely excited sorry afraid polite grateful"
    ),
    "trait": words("kind clever honest brave patient shy lazy funny gentle friendly famous wise serious cheerful"),
    "person": words(
        "doctor nurse teacher student farmer driver lawyer baker singer painter writer builder gardener waiter manager"
        " engineer soldier sailor judge captain plumber dentist scientist musician officer secretary neighbour"
        " guest visitor"
    ),
    "relative": words(
        "friend uncle aunt brother sister father mother grandfather grandmother daughter son husband wife nephew niece"
        " boss"
    ),
    "people": words(
        "children students neighbours workers guests visitors tourists players parents girls boys men women"
    ),
    "animal": words(
        "dog cat horse cow sheep goat rabbit bird duck chicken fox bear lion tiger elephant monkey mouse owl"
    ),
    "fruit": words("apples pears plums cherries grapes lemons oranges bananas peaches strawberries"),
    "vegetable": words("carrots potatoes tomatoes onions beans peas mushrooms cabbages peppers cucumbers"),
    "food": words(
        "bread cheese butter rice pasta soup salad chicken beef fish bacon ham honey sugar salt cake chocolate"
    ),
    "dish": words("sandwich omelette pie stew curry pudding pizza roast"),
    "drink": words("tea coffee milk water juice lemonade beer wine"),
    "taste": words("sweet sour bitter fresh delicious spicy salty cold hot warm burnt"),
    "meal": words("breakfast lunch dinner supper"),
    "garment": words("coat jacket shirt dress skirt scarf hat sweater belt uniform raincoat"),
    "pair": words("shoes boots gloves socks trousers glasses"),
    "vehicle": words("train bus car taxi boat ferry bicycle van truck motorcycle plane"),
    "shop": words("bakery supermarket pharmacy bookshop market butcher florist jeweller"),
    "place": words(
        "station airport harbour hospital school church museum theatre cinema hotel restaurant park bridge castle"
        " university bank factory stadium square village beach lighthouse tower prison courthouse"
    ),
    "nature": words("river mountain lake forest valley field island hill desert ocean cliff waterfall meadow path"),
    "street": phrases(
        "Church Street | Mill Lane | Park Road | Station Road | King Street | Green Lane | Bridge Street | Hill Road"
        " | Market Square | Garden Avenue | Queen Street | Forest Drive"
    ),
    "weather": words("sunny cloudy rainy windy foggy stormy snowy freezing mild chilly humid dry"),
    "storm": words("rain snow wind storm thunder fog frost hail"),
    "season": words("spring summer autumn winter"),
    "weekday": words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "month": words("January February March April May June July August September October November December"),
    "part": words("hand arm leg foot knee shoulder back neck head ear finger tooth stomach elbow"),
    "sport": words("football tennis cricket golf hockey basketball chess rugby cards"),
    "instrument": words("piano violin guitar flute trumpet drums cello organ harp"),
    "subject": words("history geography music mathematics chemistry physics biology art grammar poetry"),
    "event": words(
        "party wedding concert meeting lesson match festival lecture exhibition funeral birthday ceremony race"
    ),
    "paper": words(
        "report contract invoice agenda budget schedule proposal letter message article speech essay review"
    ),
    "firm": words("company department committee government council team club orchestra bank factory"),
    "idea": words("plan question answer problem story joke decision mistake secret reason result idea change offer"),
    "degree": words("very quite rather really too extremely fairly surprisingly"),
    "manner": words(
        "quickly slowly carefully quietly suddenly easily badly politely loudly gladly together alone twice"
    ),
    "often": words("always usually often sometimes rarely never seldom hardly"),
    "size": words("long short deep high steep busy quiet dark famous dangerous"),
    "ordinal": words(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fifteenth"
        " twentieth twenty-first thirtieth"
    ),
    "digit": words("zero one two three four five six seven eight nine"),
    "unit": words("one two three four five six seven eight nine"),
    "several": words("two three four five six seven eight nine ten eleven twelve"),
    "teen": words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"),
    "tens": words("twenty thirty forty fifty sixty seventy eighty ninety"),
    "hour": words("one two three four five six seven eight nine ten eleven twelve"),
    "letter": words("B C D E F G H J K L M N P Q R S T V X"),
    **_forms(
        ("do", "did", "doing"),  # to a thing
        "clean cleaned cleaning | find found finding | move moved moving | paint painted painting | fix fixed fixing"
        " | carry carried carrying | drop dropped dropping | lift lifted lifting | sell sold selling"
        " | buy bought buying | borrow borrowed borrowing | hide hid hiding | lose lost losing | bring brought bringing"
        " | take took taking | send sent sending | break broke breaking | choose chose choosing | steal stole stealing"
        " | draw drew drawing | keep kept keeping | hold held holding | need needed needing | wrap wrapped wrapping",
    ),
    **_forms(
        ("act", "acted", "acting"),  # without an object
        "laugh laughed laughing | cry cried crying | sleep slept sleeping | wait waited waiting | sing sang singing"
        " | dance danced dancing | work worked working | run ran running | walk walked walking | swim swam swimming"
        " | smile smiled smiling | fall fell falling | rest rested resting | talk talked talking | jump jumped jumping"
        " | whisper whispered whispering | listen listened listening | shout shouted shouting | study studied studying",
    ),
    **_forms(
        ("prepare", "prepared", "preparing"),  # food
        "cook cooked cooking | make made making | eat ate eating | order ordered ordering | taste tasted tasting"
        " | share shared sharing | serve served serving | prepare prepared preparing | enjoy enjoyed enjoying",
    ),
    **_forms(
        ("handle", "handled", "handling", "handled_now"),  # a paper, an idea
        "explain explained explaining explained | discuss discussed discussing discussed | finish finished finishing"
        " finished | accept accepted accepting accepted | forget forgot forgetting forgotten | understand understood"
        " understanding understood | remember remembered remembering remembered | change changed changing changed |"
        " consider considered considering considered | prepare prepared preparing prepared | check checked checking"
        " checked | present presented presenting presented",
    ),
    **_forms(
        ("meet", "met", "met_now"),  # a person
        "meet met met | help helped helped | call called called | visit visited visited | invite invited invited"
        " | thank thanked thanked | follow followed followed | teach taught taught | see saw seen"
        " | trust trusted trusted | pay paid paid | warn warned warned | know knew known | ask asked asked",
    ),
}

PHRASES: dict[str, tuple[str, ...]] = {
    "name": phrases("{first} | {first} | {first} | {first} {last} | {title} {last}"),
    "title": phrases("Mister | Doctor | Miss | Captain | Professor"),
    "two_digits": phrases("{teen} | {tens} | {tens}-{unit} | {tens}-{unit}"),
    "number": phrases("{several} | {several} | {two_digits} | {two_digits} | {unit} hundred | a hundred"),
    "big": phrases(
        "{unit} hundred and {two_digits} | {several} thousand | {unit} thousand {unit} hundred | {unit} million"
    ),
    "year": phrases("nineteen {tens}-{unit} | eighteen {tens}-{unit} | two thousand and {several} | twenty {teen}"),
    "clock": phrases(
        "{hour} o'clock | {hour} o'clock | half past {hour} | a quarter past {hour} | a quarter to {hour}"
        " | ten past {hour} | noon | midnight | twenty to {hour} | {hour} thirty | {hour} fifteen | {hour} forty-five"
    ),
    "noon": phrases("in the morning | in the afternoon | in the evening | at night"),
    "date": phrases("the {ordinal} of {month} | {month} the {ordinal}"),
    "past": phrases(
        "yesterday | last night | last week | this morning | on {weekday} | last {weekday} | an hour ago | in {month}"
        " | {several} days ago | {several} years ago | at {clock} | in {year} | last {season} | before {meal}"
    ),
    "future": phrases(
        "tomorrow | next week | tonight | next {weekday} | in an hour | in {several} minutes | on {date} | at {clock}"
        " | after {meal} | next {month} | next year | in the {season} | on {weekday} {noon} | soon | later"
    ),
    "price": phrases(
        "{number} dollars | {number} pounds | {number} euros | {several} dollars and {tens} cents | {big} dollars"
    ),
    "kin": phrases("my {relative} | the {person} | your {relative} | our {person} | her {relative} | his {relative}"),
    "who": phrases("{name} | {name} | {kin} | the {trait} {person} | the {people} | she | he | they | we | I"),
    "someone": phrases("{name} | {name} | {kin} | the {trait} {person} | the {people}"),
    "one": phrases("{name} | {name} | {kin} | the {trait} {person} | she | he"),
    "single": phrases("{name} | {name} | {kin} | the {trait} {person}"),
    "object": phrases(
        "the {thing} | a {look} {thing} | the {colour} {thing} | my {thing} | this {material} {thing}"
        " | {several} {look} boxes | the {look} {garment} | a pair of {pair} | the {pair}"
    ),
    "where": phrases(
        "in the {room} | on the {spot} | under the {spot} | behind the {fixture} | near the {place} | at the {place}"
        " | beside the {nature} | outside the {shop} | in {city} | between the {spot} and the {fixture}"
    ),
    "to_place": phrases("to the {place} | to {city} | to {country} | to the {shop} | across the {nature} | home"),
    "meal_of": phrases("{food} | {fruit} | {vegetable} | {food} and {vegetable} | a {taste} {dish} | some {fruit}"),
    "matter": phrases(
        "the {paper} | the {idea} | this {idea} | my {paper} | the {ordinal} {paper} | that {look} {idea}"
    ),
}

TOPICS: dict[str, tuple[str, ...]] = {
    "household": phrases(
        "{who} {did} {object} {where}. | {who} {did} {object} {past}. | The {fixture} in the {room} is broken. |"
        " Please {do} {object} before {meal}. | Did you {do} {object}? | Who {did} {object}? | Where is the {thing}? |"
        " Where are the {pair}? | There is a {look} {thing} {where}. | Could you close the {fixture}, please? | Don't"
        " {do} {object}! | {one} was {doing} {object} when the {fixture} opened. | The {thing} is {degree} {look}. |"
        " Is this your {thing}, or is it {first}'s? | I can't find my {thing} or my {pair}. | What a {look} {thing}! |"
        " The {thing} {where} belongs to {someone}. | {people}, please {act} {manner}."
    ),
    "weather": phrases(
        "It was {weather} {past}. | It will be {weather} in {city} {future}. | Will there be {storm} {future}?"
        " | The {storm} came {onset} {past}. | It is {degree} {weather} today, isn't it? | What {weather} weather!"
        " | Take a {garment}, because it is {weather} outside. | The {season} in {country} is {weather}."
        " | After the {storm}, the {nature} was {degree} quiet. | The temperature is {number} degrees."
        " | How much {fall} fell {past}? | The sun rose at {clock}, and the {storm} stopped."
    ),
    "travel": phrases(
        "The {vehicle} to {city} leaves at {clock}. | {who} went {to_place} by {vehicle}. | We travelled {to_place}"
        " {past}. | When does the next {vehicle} arrive? | How far is it {to_place}? | {who} will fly {to_place}"
        " {future}. | Turn {left} at the {place}, then go straight ahead. | The {place} is {number} miles from here. |"
        " Your {vehicle} leaves from platform {several}. | Can we walk {to_place}, or is it too far? | The {nature}"
        " near {city} is {degree} {size}. | Gate {letter}, seat {two_digits}. | Have a good journey, {first}! | I left"
        " my {thing} on the {vehicle}. | A return ticket {to_place} costs {price}. | Hurry up, the {vehicle} is"
        " leaving! | {single} lives at number {two_digits}, {street}. | Have you ever been to {country}?"
    ),
    "food": phrases(
        "{who} {prepared} {meal_of} {past}. | Would you like {drink} or {drink}? | The {food} was {degree} {taste}. |"
        " We need {food}, {drink}, and {vegetable}. | {who} {prepared} {meal_of} for {meal}. | This {dish} is {taste}!"
        " | I'd like a cup of {drink}, please. | Let's {prepare} {meal_of} together. | Who {prepared} the {dish}? |"
        " {one} was {preparing} {meal_of} {where}. | Add {several} spoons of sugar, and stir {manner}. | {first}"
        " {often} drinks {drink} with {food}. | {meal} will be ready at {clock}. | Is there any {food} left? | Pass me"
        " the {food}, please. | The {shop} sells {taste} {fruit} and {vegetable}. | How {taste} the {drink} is!"
    ),
    "work": phrases(
        "{who} {handled} {matter} {past}. | The {event} begins at {clock} {noon}. | Please {handle} {matter} by"
        " {weekday}. | {one} works for a {look} {firm} in {city}. | Who will {handle} {matter}? | The {firm} {handled}"
        " {matter}. | {one} is {handling} {matter} with {someone}. | Have you {handled_now} the {paper}? | I can't"
        " {handle} {matter}. | The {event} is on {date}. | We must {handle} {matter} {future}. | {one} said that the"
        " {paper} was {look}. | How many {people} came to the {event}? | The price is {price}, which is {degree}"
        " {cost}. | Good morning, {name}, this is {name}. | Send the {paper} to {someone} {future}. | Well done,"
        " {first}! | {big} {people} work at the {place}. | The {firm} was founded in {year}."
    ),
    "people": phrases(
        "{who} {met} {someone} {where}. | {who} {met} {someone} {past}. | {one} is {degree} {mood}. | Why are you so"
        " {mood}? | {one} {acted} {manner}. | The {people} are {acting} {where}. | Have you {met_now} {someone}? |"
        " {name} and {name} are {acting} {manner}. | My {relative} is {two_digits} years old. | How old is {kin}? |"
        " {single} speaks {language} and {language}. | Can {someone} {meet} {name} {future}? | What a {trait}"
        " {person}! | {one} was {mood}, but {single} was not. | {name} is the {person} of {name}. | Thank you,"
        " {first}! | My {part} hurts when I {act}. | I think that {single} is {degree} {trait}. | {single} has"
        " {several} children. | {one} was born on {date}. | Do you know {someone}? | Don't {act} {where}! | {one} wore"
        " a {colour} {garment}. | If you are {mood}, call {someone}. | I'm {mood}, {first}, so let me {act}. |"
        " {someone} never {acted} again."
    ),
    "leisure": phrases(
        "{who} played {sport} {past}. | Do you play the {instrument}? | {first} {often} plays {sport} on {weekday}. |"
        " {one} is {acting} beside the {nature}. | We saw a {animal} near the {nature}. | Look at that {colour}"
        " {animal}! | The {animal} {animal_acted} {onset}. | Our team won {digit} to {digit}. | The {event} was"
        " {degree} {length}. | Shall we go to the {event} {future}? | {one} studies {subject} and {subject}. | The"
        " {animal} is {animal_acting} {where}. | There are {number} {animal_many} in the {nature}. | I read {number}"
        " pages of the book {past}. | Stop {acting}! | {someone} {often} {acted} in the {season}. | Which do you"
        " prefer, {sport} or {sport}? | The {subject} lesson was {degree} {length}. | Whose {animal} is that, yours or"
        " {first}'s?"
    ),
    "numbers": phrases(
        "{digit}, {digit}, {digit}. | {digit}, {digit}, {digit}, {digit}. | {digit} {digit} {digit} {digit} {digit}. |"
        " My number is {digit} {digit} {digit}, {digit} {digit} {digit} {digit}. | Call {digit} {digit} {digit},"
        " {digit} {digit} {digit}. | The code is {letter} {digit} {digit} {digit}. | {digit}. | {digit} {digit}. |"
        " {digit} or {digit}? | Room {digit} {digit} {digit}, please. | {several} plus {several} is {number}. | It"
        " costs {price}. | {big} people live in the {place}. | Flight {letter} {letter} {digit} {digit} {digit}. | It"
        " is {clock} {noon}. | What is {several} times {several}? | I counted {digit}, {digit}, and {digit}. | {date},"
        " {year}. | Page {two_digits}, line {several}. | That was {big}, not {big}! | Is it {clock} or {clock}?"
    ),
    "more": phrases(
        "Nobody knows why {one} {did} {object}. | Everyone likes {food} with {vegetable}. | Something {acted_like}"
        " {where}. | Either {name} or {name} will {handle} {matter}. | Neither {single} nor {single} {acted} {past}. |"
        " I've never {met_now} {single} before. | You'll find {object} {where}. | They're going {to_place} {future}. |"
        " We don't know where {single} is. | It's {degree} {mood_it}, but we must {act}. | That's {first}'s {thing}. |"
        " {one} should {handle} {matter} before {clock}. | You'd better {meet} {single} {future}. | Let's {act}! |"
        " Could I speak to {name}, please? | {one} could neither {act} nor {act}. | Which {thing} is cheaper? | This"
        " {thing} is older than that {thing}. | The {look} {thing} is the best of all. | Mind your {part}! | {one}"
        " went through the {fixture} and into the {room}. | Every {weekday}, {one} walked along the {nature}. | About"
        " {number} {people} stood around the {place}. | {one} has been {mood} since {weekday}. | Nothing happened"
        " {past}. | Without a {thing}, {one} couldn't {act} {where}. | There were {several} {people} inside the"
        " {vehicle}. | A {trait} {person} from {country} {handled} {matter}. | All the {people} {acted} except"
        " {single}. | During the {event}, {someone} {acted} {manner}. | The {ordinal} {event} of the {season} was the"
        " {superlative}. | {one} might {do} {object}, {although} it is {degree} {look}. | How {look} everything was in"
        " {city}!"
    ),
    "joined": phrases(
        "{one} {acted} {manner}, and {someone} {did} {object}. | When {one} {acted}, the {people} {acted}."
        " | Although it was {weather}, {one} went {to_place}. | {one} {did} {object}, but {someone} {handled} {matter}."
        " | If it is {weather} {future}, we will {act} {where}. | Before {meal}, {one} {did} {object}."
        " | Because {single} was {mood}, {one} {acted} {manner}. | Yes, {one} {did} {object}. | No, {one} didn't {act}."
        " | {past_front}, {one} {met} {someone}. | {someone} asked whether {one} had {handled_now} {matter}."
        " | While {someone} {acted}, {one} {prepared} {meal_of}. | First {one} {acted}, then {one} {acted}."
        " | Perhaps {someone} will {do} {object}, {first}. | Of course, {someone} {did} it {manner}."
    ),
}

RULES: dict[str, tuple[str, ...]] = {
    **LEXICON,
    **PHRASES,
    "left": words("left right"),
    "cost": words("cheap expensive high low fair reasonable"),
    **_forms(
        ("animal_acted", "animal_acting"),
        "slept sleeping | ran running | escaped escaping | jumped jumping | drank drinking | hid hiding | fed feeding",
    ),
    "fall": words("rain snow hail"),
    "acted_like": words("moved fell burned glowed shone broke waited"),
    "mood_it": words("early late cold dark difficult easy strange unfair"),
    "superlative": words("best worst longest shortest largest smallest"),
    "although": phrases("although | because | even though | unless | if"),
    "length": words("long short dull exciting interesting noisy crowded"),
    "onset": words("suddenly slowly quickly early late unexpectedly"),
    "animal_many": words("dogs cats horses cows goats rabbits birds ducks bears lions monkeys owls"),
    "past_front": phrases("Yesterday | Last night | Last {weekday} | In {year} | {several} days ago | On {date}"),
}
