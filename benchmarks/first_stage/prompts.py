"""What the LM is asked to write about, and what it is asked of a text."""

from __future__ import annotations

TOPICS: dict[str, str] = {
    "sports": (
        "a football final;a tennis player's injury;the Olympic Games;a marathon;a rugby team's new coach;a "
        "swimming record;ice hockey;a cricket match;cycling in the mountains;a boxing title;gymnastics "
        "training;fencing;horse racing;a young basketball star;motor racing"
    ),
    "travel": (
        "booking cheap flights;a safari;backpacking in Asia;hotels in a big city;visa rules for "
        "tourists;packing for a cold climate;a cruise;travelling with children;a night train;tipping in "
        "restaurants abroad;camping in a national park;car rental;travel insurance;a day trip from the "
        "capital;staying safe as a tourist"
    ),
    "politics": (
        "a presidential election;a new law in parliament;a minister's resignation;a peace treaty;a protest "
        "against the government;sanctions between two countries;a referendum;a coalition;a diplomatic "
        "visit;the opposition's campaign;a constitution;corruption charges;the prime minister's speech;border "
        "talks;a vote of confidence"
    ),
    "science": (
        "a new particle;how atoms are built;a fossil discovery;the origin of mammals;a genetic study;how "
        "lasers work;chemical reactions;gravity;a laboratory experiment;evolution of birds;the structure of "
        "cells;a new theory in physics;dinosaurs;how magnets work;how light behaves"
    ),
    "technology": (
        "a new smartphone;computer security;robots in factories;artificial intelligence;the internet in "
        "villages;electric cars;satellites for navigation;a software update;video calls;3D printing;online "
        "privacy;batteries;digital cameras;programming languages;drones"
    ),
    "health": (
        "a flu outbreak;vaccines for children;a healthy diet;heart disease;mental health;a hospital under "
        "strain;malaria;sleep;a new drug trial;pregnancy care;diabetes;clean water and disease;back pain;an "
        "operation;allergies"
    ),
    "entertainment": (
        "a new film;a pop concert;a television series;a film festival;an actor's award;a comedy show;a "
        "theatre play;a famous singer's tour;a video game;a music video;a circus;a radio programme;a "
        "celebrity wedding;a dance contest;an animated movie"
    ),
    "geography": (
        "a river delta;the highest mountain of a country;an island in the ocean;the borders of a country;a "
        "desert;the population of a city;a lake in Africa;a coastal plain;a volcano chain;the climate of a "
        "region;a peninsula;a large valley;a strait between two seas;the capital and its districts;a rain "
        "forest"
    ),
    "economy": (
        "rising prices;a bank's profits;a trade agreement;the stock market;unemployment;a new "
        "factory;interest rates;small shops;a tax reform;oil prices;foreign investment;a company "
        "merger;exports of coffee;wages;the housing market"
    ),
    "education": (
        "a new school;university fees;exams;teaching reading;teachers' pay;school meals;online lessons;a "
        "library;homework;learning a foreign language;scholarships;kindergarten;student exchange;a science "
        "class;literacy"
    ),
    "environment": (
        "melting glaciers;plastic in the sea;endangered tigers;deforestation;air pollution;recycling;a nature "
        "reserve;climate change;wildfires;coral reefs;clean rivers;protecting bees;solar "
        "parks;overfishing;planting trees"
    ),
    "history": (
        "an ancient empire;the Second World War;a medieval castle;a revolution;the invention of "
        "printing;Egyptian pyramids;the slave trade;a queen of the past;the fall of a wall;early cities;a "
        "famous battle;the Silk Road;explorers;the industrial revolution;a lost civilisation"
    ),
    "crime": (
        "a bank robbery;a murder trial;police arrests;a prison;fraud;a kidnapping;a court decision;a stolen "
        "painting;drug smuggling;a witness;a shooting;juvenile offenders;a bomb threat;a lawyer;hostages"
    ),
    "disasters": (
        "an earthquake;a flood;a hurricane;a plane crash;a volcano's eruption;a train accident;a landslide;a "
        "drought;a tsunami warning;a collapsed bridge;a ship that sank;a fire in a hotel;an avalanche;rescue "
        "workers;an explosion in a factory"
    ),
    "food": (
        "baking bread;street food;a rice dish;olive oil;cooking fish;a restaurant's menu;spices;cheese "
        "making;a family dinner;vegetables from the market;coffee;fruit harvest;a soup recipe;desserts;tea"
    ),
    "religion": (
        "a temple;a holy book;a pilgrimage;a church service;a festival of lights;fasting;monks;a mosque;a "
        "bishop's visit;prayer;a religious leader;funeral customs;a saint;a synagogue;meditation"
    ),
    "animals": (
        "elephants;a pet dog;birds of prey;whales;snakes;farm "
        "animals;cats;insects;wolves;monkeys;horses;frogs;bears;fish in rivers;spiders"
    ),
    "agriculture": (
        "a wheat harvest;rice fields;cattle;irrigation;fertiliser;a tractor;sheep herding;a poor "
        "harvest;bananas;organic farming;seeds;a farmers' market;pests;milk prices;fishing villages"
    ),
    "weather": (
        "heavy rain;a heat wave;snow in the mountains;fog on the roads;a storm;a mild "
        "winter;thunder;monsoon;a cold spring;strong winds;frost;a rainbow;hail;humidity;a dry season"
    ),
    "transport": (
        "a new metro line;traffic jams;a bridge;buses;an airport;bicycle lanes;a ferry;road safety;a railway "
        "station;trucks;ports and ships;parking;fuel;a delayed flight;a tunnel"
    ),
    "space": (
        "a mission to Mars;the Moon;a comet;a space telescope;astronauts;a rocket launch;the rings of "
        "Saturn;black holes;the Sun;a meteorite;stars;a space station;a satellite of Jupiter;galaxies;life on "
        "other planets"
    ),
    "military": (
        "soldiers on patrol;an air strike;a navy ship;a ceasefire;a military base;tanks;a general;war "
        "refugees;a hostage rescue by troops;weapons;veterans;a missile test;peacekeepers;a rebel group;a "
        "siege"
    ),
    "art": (
        "a painting;a museum;a sculpture;street art;a photographer;pottery;an exhibition;architecture of a "
        "cathedral;a poem;a novelist;weaving;a drawing class;an art auction;an opera;calligraphy"
    ),
    "family": (
        "a wedding;grandparents;raising children;a birthday;moving house;a divorce;twins;a family "
        "photograph;siblings;adoption;a letter to a friend;neighbours;old age;a baby's first words;a family "
        "business"
    ),
    "fashion": (
        "winter coats;a fashion show;shoes;traditional dress;jewellery;hair styles;a designer;cotton;second- "
        "hand clothes;hats;a wedding dress;perfume;fabrics;school uniforms;handbags"
    ),
    "law": (
        "human rights;a new court;contracts;copyright;the rights of workers;a judge's ruling;land "
        "ownership;immigration rules;the right to vote;a treaty;inheritance;a fine;consumer protection;equal "
        "pay;freedom of speech"
    ),
    "language": (
        "dialects;learning vocabulary;an endangered language;grammar;translation;writing systems;sign "
        "language;the spread of English;slang;a dictionary;place names;accents;children learning to "
        "speak;Latin;an alphabet"
    ),
    "work": (
        "job interviews;working from home;a strike;night shifts;an office;apprentices;a union;retirement;a "
        "carpenter;safety at work;a manager;a part-time job;a nurse's day;a team meeting;skills"
    ),
    "energy": (
        "wind power;a nuclear plant;coal mines;a power cut;hydroelectric dams;gas pipelines;saving "
        "electricity;solar panels;oil drilling;firewood;charging stations;energy prices;biofuel;a "
        "reactor;heat pumps"
    ),
    "city life": (
        "a market square;apartments;a park;noise at night;street lights;a shopping mall;homeless people;a "
        "playground;skyscrapers;cafés;waste collection;a festival in the streets;crowds;a new library "
        "building;rents"
    ),
}
"""Topic to subjects, separated by semicolons."""

OTHER_NAMES = {
    "science": ("science", "science and technology", "science/technology"),
    "technology": ("technology", "science and technology", "science/technology"),
    "economy": ("economy", "business", "economics"),
    "environment": ("environment", "nature"),
    "sports": ("sports", "sport"),
    "health": ("health", "medicine"),
    "disasters": ("disasters", "accidents"),
    "food": ("food", "cooking"),
    "transport": ("transport", "traffic"),
}
"""Words for a topic where there are several."""
KINDS = (
    "a news report",
    "an encyclopaedia article",
    "a guide book",
    "a school book",
    "a magazine article",
    "a conversation",
    "a short report",
    "a biography",
    "a radio interview",
    "a web page with advice",
)
WRITE = (
    "Write one long sentence about {subject}, as in {kind}.",
    "Write two sentences from {kind} about {subject}.",
    "Write a sentence with facts about {subject}.",
    "Write one sentence about {subject} that could stand in {kind}. Mention a place.",
    "Write two sentences about {subject}. Mention a person and a number.",
)
THINGS = (
    "a hotel;a restaurant;a phone;a film;a book;a taxi ride;a shop;a course;a pair of shoes;a bank;an app;a flight;"
    "a cake;a doctor;a concert;a laptop;a delivery service;a city;a museum;a coffee machine;a landlord;a bus line;"
    "a beach;a jacket"
)
FEELINGS = {"positive": "a happy", "negative": "an angry", "neutral": "a neutral, factual"}
WRITE_OPINION = (
    "Write {feeling} customer review of {thing} in two sentences.",
    "Write {feeling} comment about {thing}.",
)

READ = "Translate the text into English."
TOPIC = (
    "Which topic is this text about? Answer with one of: {options}.",
    "What is the topic of the text? Answer with one of: {options}.",
    "Which topic does the text belong to: {options}?",
    "Classify the text. The classes are {options}.",
    "The text is from the section {options}. Which one? Answer with its name.",
    "Choose the category of the text: {options}",
)
SUBJECT = ("What is this text about?", "Say in a few words what the text is about.", "What is the subject of the text?")
OPINION = (
    "Is the sentiment of the text {options}?",
    "What is the sentiment of the text? Answer with one of: {options}.",
    "Classify the opinion in the text as {options}.",
)
WORD = ("Which word has this meaning?", "Which English word is explained here?")
MEANING = ("Explain the word in English.", "What does this mean?")
ANSWERED_BY_LM = (
    "Summarise in English.",
    "Summarise the text in one sentence.",
    "What is the main point of the text?",
    "Write a title for the text.",
    "Who or what is the text about?",
    "Write a question that the text answers.",
    "Explain the text in simple words.",
    "Write a short reply to the text.",
    "Name three keywords of the text.",
    "Continue the text.",
)
"""Instructions whose answers are the LM's own, to the plain English text."""
