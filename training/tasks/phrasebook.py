"""Common words and phrases in four languages."""

LANGUAGES = ("French", "Spanish", "German", "Italian")


def _rows(text: str) -> dict:
    """English text: the four translations, from lines parted by "|"."""
    rows = (tuple(part.strip() for part in line.split("|")) for line in text.strip().splitlines())
    return {row[0]: row[1:] for row in rows}


WORDS = _rows("""
house | maison | casa | Haus | casa
cat | chat | gato | Katze | gatto
dog | chien | perro | Hund | cane
horse | cheval | caballo | Pferd | cavallo
bird | oiseau | pájaro | Vogel | uccello
cow | vache | vaca | Kuh | mucca
water | eau | agua | Wasser | acqua
bread | pain | pan | Brot | pane
milk | lait | leche | Milch | latte
cheese | fromage | queso | Käse | formaggio
wine | vin | vino | Wein | vino
coffee | café | café | Kaffee | caffè
tea | thé | té | Tee | tè
sugar | sucre | azúcar | Zucker | zucchero
salt | sel | sal | Salz | sale
egg | œuf | huevo | Ei | uovo
apple | pomme | manzana | Apfel | mela
man | homme | hombre | Mann | uomo
woman | femme | mujer | Frau | donna
child | enfant | niño | Kind | bambino
mother | mère | madre | Mutter | madre
father | père | padre | Vater | padre
brother | frère | hermano | Bruder | fratello
sister | sœur | hermana | Schwester | sorella
friend | ami | amigo | Freund | amico
king | roi | rey | König | re
sun | soleil | sol | Sonne | sole
moon | lune | luna | Mond | luna
star | étoile | estrella | Stern | stella
sea | mer | mar | Meer | mare
rain | pluie | lluvia | Regen | pioggia
snow | neige | nieve | Schnee | neve
fire | feu | fuego | Feuer | fuoco
tree | arbre | árbol | Baum | albero
flower | fleur | flor | Blume | fiore
mountain | montagne | montaña | Berg | montagna
city | ville | ciudad | Stadt | città
street | rue | calle | Straße | strada
school | école | escuela | Schule | scuola
book | livre | libro | Buch | libro
table | table | mesa | Tisch | tavolo
door | porte | puerta | Tür | porta
window | fenêtre | ventana | Fenster | finestra
key | clé | llave | Schlüssel | chiave
hand | main | mano | Hand | mano
eye | œil | ojo | Auge | occhio
heart | cœur | corazón | Herz | cuore
day | jour | día | Tag | giorno
night | nuit | noche | Nacht | notte
year | année | año | Jahr | anno
week | semaine | semana | Woche | settimana
Monday | lundi | lunes | Montag | lunedì
Sunday | dimanche | domingo | Sonntag | domenica
winter | hiver | invierno | Winter | inverno
summer | été | verano | Sommer | estate
red | rouge | rojo | rot | rosso
blue | bleu | azul | blau | blu
green | vert | verde | grün | verde
white | blanc | blanco | weiß | bianco
black | noir | negro | schwarz | nero
big | grand | grande | groß | grande
small | petit | pequeño | klein | piccolo
good | bon | bueno | gut | buono
bad | mauvais | malo | schlecht | cattivo
new | nouveau | nuevo | neu | nuovo
old | vieux | viejo | alt | vecchio
one | un | uno | eins | uno
two | deux | dos | zwei | due
three | trois | tres | drei | tre
four | quatre | cuatro | vier | quattro
five | cinq | cinco | fünf | cinque
six | six | seis | sechs | sei
seven | sept | siete | sieben | sette
eight | huit | ocho | acht | otto
nine | neuf | nueve | neun | nove
ten | dix | diez | zehn | dieci
love | amour | amor | Liebe | amore
work | travail | trabajo | Arbeit | lavoro
car | voiture | coche | Auto | macchina
money | argent | dinero | Geld | soldi
""")

PHRASES = _rows("""
yes | oui | sí | ja | sì
no | non | no | nein | no
thank you | merci | gracias | danke | grazie
please | s'il vous plaît | por favor | bitte | per favore
goodbye | au revoir | adiós | auf Wiedersehen | arrivederci
good morning | bonjour | buenos días | guten Morgen | buongiorno
good evening | bonsoir | buenas tardes | guten Abend | buonasera
good night | bonne nuit | buenas noches | gute Nacht | buonanotte
I love you | je t'aime | te quiero | ich liebe dich | ti amo
how are you | comment allez-vous | cómo estás | wie geht es dir | come stai
I am sorry | je suis désolé | lo siento | es tut mir leid | mi dispiace
see you tomorrow | à demain | hasta mañana | bis morgen | a domani
where is | où est | dónde está | wo ist | dov'è
I do not know | je ne sais pas | no sé | ich weiß nicht | non lo so
happy birthday | joyeux anniversaire | feliz cumpleaños | alles Gute zum Geburtstag | buon compleanno
""")
