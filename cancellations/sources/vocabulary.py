"""How tables of other systems call what a reservation holds, and how they spell the ways it ended.

Names are compared as `plain` makes them: small letters without accents, words parted by one space.
A pattern fits a whole name; earlier ones fit better.
"""

from __future__ import annotations

import re
import unicodedata

from cancellations.domain.reservation import Status

_OF = r"(?:(?:no|num|number|nr|count|total|nb|nombre|numero|anzahl)(?: number)? ?(?:of |de |der )?)?"
_ID = r"(?:id|no|nr|number|num|code|ref|reference|nummer|key)"
_DAY = r"(?: ?(?:date|day|on|at|dt|time|timestamp|utc))*"
_WHO = r"(?: ?(?:id|name|code|nr|no))?"

NAMES_OF: dict[str, tuple[str, ...]] = {
    "reservation_id": (
        rf"(?:reservation|booking|book|confirmation|res|rsv|rez)(?: {_ID})+",
        rf"(?:{_ID} )(?:reservation|booking|reserva|prenotazione)",
        r"(?:reservierungs?|buchungs?|bestatigungs?) ?(?:id|nr|nummer|no|code)",
        r"(?:numero|num|codigo|code|id) (?:de |di )?(?:la )?(?:reservation|reserva|prenotazione|confirmation)",
        r"localizador|pnr|folio(?: (?:no|nr|number))?|order (?:id|no|number)|confirmation|booking|reservation|reserva",
        r"id|key|nr|no|number",
    ),
    "hotel": (
        rf"hotel{_WHO}|property{_WHO}|listing(?: ?(?:id|name|title|s nickname))?|resort{_WHO}",
        r"objekt|haus|unterkunft|betrieb|etablissement|hebergement|propiedad|alojamiento|establecimiento|struttura",
        rf"apartment{_WHO}|accommodation{_WHO}|unit{_WHO}|house|site|branch|nickname|location",
    ),
    "booked_on": (
        r"(?:booking|reservation|booked|reserved|res|purchase|order)(?: ?(?:made|created|creation))?"
        r"(?: ?(?:date|day|on|at|dt|time|timestamp))+",
        rf"booked|(?:created|creation|date created|date booked|insert|entry|made){_DAY}",
        r"date (?:of )?(?:booking|reservation|creation|booked|created|reserved|made)",
        r"buchungs(?:datum|tag|zeit)|reservierungs(?:datum|tag)|gebucht(?: am)?|erstell(?:t|ungsdatum)(?: am)?",
        r"angelegt(?: am)?|erfasst(?: am)?|date (?:de )?(?:la )?(?:reservation|creation)|reserve(?:e)? le",
        r"(?:fecha|data) (?:de |di |da )?(?:la )?(?:reserva|creacion|prenotazione|creazione|criacao)|creado(?: el)?",
    ),
    "lead_days": (
        r"lead(?: ?time)?(?: (?:in )?days)?|days? (?:in )?(?:advance|ahead|before arrival|to arrival|until arrival)",
        r"booking window|advance (?:days|booking(?: days)?)|(?:buchungs)?vorlauf(?:zeit)?(?: tage)?|antelacion",
    ),
    "arrival_on": (
        rf"arrival{_DAY}|check ?in{_DAY}|date (?:of )?(?:arrival|check ?in)",
        r"anreise(?: ?(?:datum|tag|am))?|ankunft(?: ?s?datum)?|(?:date )?(?:d |de |l )*arrivee",
        r"(?:(?:fecha|data) (?:de |di |da )?)?(?:llegada|entrada|arrivo|chegada)|arr(?: (?:date|dt))?",
        rf"(?:stay )?(?:start|begin){_DAY}|(?:stay |date )?from(?: date)?|von|stay date|first night|du|desde|dal",
    ),
    "departure_on": (
        rf"departure{_DAY}|check ?out{_DAY}|date (?:of )?(?:departure|check ?out)",
        r"abreise(?: ?(?:datum|tag|am))?|(?:date )?(?:de )?depart|dep(?: (?:date|dt))?",
        r"(?:(?:fecha|data) (?:de |di |da )?)?(?:salida|partenza|partida|saida)",
        rf"(?:stay )?end{_DAY}|(?:stay |date )?(?:to|until)(?: date)?|bis|au|hasta|al",
    ),
    "nights": (
        rf"{_OF}(?:of )?(?:room )?nights?(?: (?:booked|stayed|count))?|length of stay|los",
        r"stay (?:length|nights|duration)",
        rf"{_OF}(?:ubernachtungen|uebernachtungen|nachte|naechte|nuits|nuitees|noches|notti|noites)",
        r"duration(?: (?:in )?nights)?|aufenthalt",
    ),
    "weekend_nights": (rf"{_OF}(?:stays? in )?week ?end (?:nights?|stays?)",),
    "week_nights": (rf"{_OF}(?:stays? in )?week ?(?:day )?(?:nights?|stays?)|{_OF}(?:stays? in )?weekday nights?",),
    "adults": (
        rf"{_OF}(?:adults?|erw|erwachsene[nr]?|adultes?|adultos?|adulti)(?: count)?",
        rf"{_OF}(?:guests?|persons?|people|pax|occupants|occupancy|travell?ers|personen|gaste|personnes|voyageurs"
        r"|huespedes|personas|ospiti|persone|hospedes)|party size",
    ),
    "children": (rf"{_OF}(?:child(?:ren)?|kids?|kinder|enfants?|ninos|bambini|criancas|minors)(?: count)?",),
    "babies": (rf"{_OF}(?:bab(?:y|ies|ys)|infants?|kleinkinder|sauglinge|bebes?|neonati)(?: count)?",),
    "meal": (
        r"meals?(?: ?(?:plan|type))*|type of meal(?: plan)?|board(?: ?(?:basis|type|code))?",
        r"verpflegung(?:sart)?|pension|regime|regimen|trattamento",
    ),
    "market_segment": (r"market segment(?: ?(?:type|code|name))?|markt ?segment|segment[eo]?|market(?: code)?",),
    "distribution_channel": (
        r"(?:distribution|sales|booking) channel|channel(?: (?:name|code))?|(?:buchungs|vertriebs)?kanal|canale?",
        r"(?:booking |reservation )?source(?: (?:name|code|of business))?|quelle|herkunft|platform|portal|ota|origin",
    ),
    "repeated_guest": (
        r"(?:is )?(?:repeat|repeated|repeating|returning) ?(?:guest|customer)?|stammgast|client fidele|repetidor",
    ),
    "previous_cancellations": (
        rf"{_OF}(?:previous|prior|past|earlier) (?:booking )?cancell?ations?|bisherige stornos|fruhere stornierungen",
    ),
    "previous_stays": (
        rf"{_OF}(?:previous|prior|past|earlier) (?:bookings? not cancell?ed|stays?|visits?)|bisherige aufenthalte",
    ),
    "room_type": (
        r"(?:reserved|booked|requested) (?:room|room ?type|(?:room )?category)",
        r"room ?(?:type|category|class)(?: (?:reserved|booked|requested|code|label|name))?",
        r"zimmer ?(?:kategorie|typ|art)|(?:type|categorie) (?:de )?chambre|tipo (?:de |di )?(?:habitacion|camera)",
        r"categorie|categoria|unit type|accommodation type|kategorie|room",
    ),
    "deposit_type": (
        r"deposit(?: ?(?:type|policy))?|cancell?ation (?:policy|terms)|rate (?:type|conditions)|guarantee(?: type)?",
        r"anzahlung(?:sart)?|storno(?:bedingung(?:en)?|regel)|acompte|deposito|prepayment(?: type)?",
    ),
    "agent": (rf"(?:travel )?agen(?:t|cy){_WHO}|reiseburo|agence|agencia|agenzia|tour ?operator|veranstalter",),
    "company": (rf"company{_WHO}|firma|corporate{_WHO}|societe|empresa|azienda|organi[sz]ation",),
    "customer_type": (r"(?:customer|guest|client|booking) (?:type|category)|kundentyp|kundenart|gasttyp|trip type",),
    "price": (
        r"adr|average daily rate|(?:avg|average|mean) (?:room )?(?:price|rate)(?: per (?:room|night)| room| night)*",
        r"(?:room |base )?(?:price|rate|preis|tarif|prix|precio|prezzo) (?:per |pro |par |por |a )?(?:night|room|nacht"
        r"|nuit|noche|notte)",
        r"(?:nightly|daily|room|night) (?:rate|price|tariff)|zimmerpreis|rate(?: amount)?|tarif|tariff|tarifa",
        r"price|preis|prix|precio|prezzo",
    ),
    "total_price": (
        r"(?:grand total|total|gross|net)(?: (?:booking|stay|room|reservation))?(?: (?:price|amount|revenue|cost|rate"
        r"|charge|value|payout|sum))?(?: (?:eur|usd|gbp|chf))?",
        r"(?:booking|stay|reservation|room|accommodation) (?:amount|value|revenue|price|total)|price total",
        r"amount|revenue|(?:gross |net )?earnings|(?:host )?payout|umsatz|gesamt(?:preis|betrag|umsatz|summe)?|betrag",
        r"(?:prix|montant)(?: total)?|(?:importe|precio|importo|prezzo) total[e]?|importe|importo",
    ),
    "special_requests": (
        rf"{_OF}(?:of )?(?:special )?requests?(?: count)?|{_OF}sonderwunsche?|demandes speciales|peticiones",
    ),
    "status": (
        r"(?:reservation|booking|resv?|rsv|reservierungs?|buchungs?|final) ?status(?: (?:code|name))?|booking state",
        r"status(?: (?:code|name|text))?|statut|etat|estado(?: (?:de )?(?:la )?reserva)?|stato|situacao|state",
        r"(?:is )?(?:cancell?ed|cancell?ation)(?: (?:flag|status|indicator))?|storniert|storno|annule|cancelad[ao]",
    ),
    "known_on": (
        r"(?:reservation |booking )?status (?:date|changed(?: on| at)?|since)",
        rf"cancell?(?:ation|ed|ing)? ?(?:date|day|on|at|dt|time|timestamp|utc){_DAY}|date (?:of )?cancell?(?:ation|ed)",
        r"storno ?(?:datum|tag|am)|stornierungsdatum|storniert am|date (?:d |de l )?annulation|annule(?:e)? le",
        r"(?:fecha|data) (?:de |di )?(?:cancelacion|anulacion|cancellazione|annullamento|cancelamento)",
        r"cancell?(?:ed|ation)|storniert|storno|annulee?|cancelad[ao]",
    ),
}
# A day of arrival that is told in three columns.
_ARRIVAL = r"(?:(?:arrival|check ?in|stay|anreise)(?: date)? (?:of )?)"
PARTS_OF: dict[str, tuple[str, ...]] = {
    "year": (rf"{_ARRIVAL}(?:year|jahr)|year (?:of )?arrival", r"year|jahr"),
    "month": (rf"{_ARRIVAL}(?:month|monat)(?: (?:name|no|number))?|month (?:of )?arrival", r"month|monat"),
    "day": (
        rf"{_ARRIVAL}(?:day(?: of (?:the )?month)?|tag|date)|day (?:of )?arrival",
        r"arrival date|day(?: of month)?|tag",
    ),
}

# A word of a name -> why a model must not see the column. The first that fits is told.
LATER: tuple[tuple[str, str], ...] = (
    (r"cancel\w*|storn\w*|annul\w*|anul\w*|no ?show|status|statut|state|estado|outcome", "it tells the outcome"),
    (
        r"assigned|allocated|room (?:no|number|nr)|zimmer ?(?:nr|nummer)",
        "the room is assigned later, mostly at arrival",
    ),
    (r"check(?:ed)? ?(?:out|in)|departed|arrived|actual|abreise|anreise", "it is known at the stay"),
    (
        r"change[sd]?|modifi\w*|updated?|amend\w*|last|since|ago|geandert|anderung\w*",
        "it grows with the booking's age",
    ),
    (r"waiting|wait ?list|warteliste", "it is known once the waiting is over"),
    (
        r"paid|payments?|balance|invoice\w*|refund(?!abl)\w*|folio|penalty|commission|bezahlt|rechnung\w*",
        "it is paid later",
    ),
    (r"review\w*|rating|score|feedback|bewertung", "it is written after the stay"),
    (r"parking|parkplatz|extras?|minibar|spa|consumption", "it is often told at arrival only"),
    (r"country|nationality|nation|land|pays|pais", "it is often filled in at check-in, for those who come"),
    (
        r"year|month|week(?:day|number)?|season|quarter|jahr|monat|woche|day of (?:week|year)",
        "it tells the season: where bookings of the last days have not ended, that reads as their outcome",
    ),
)
PERSONAL = (
    r"e ?mails?|mail|phones?|telephone|telefon\w*|mobile|handy|tel|fax|address|adresse|anschrift|street|strasse"
    r"|zip|postal|postcode|plz|city|ort|passport|birth\w*|geburt\w*|dob|age|gender|sex|salutation|anrede|title"
    r"|names?|nachname|vorname|firstname|lastname|surname|fullname|gastname|nom|prenom|nombre|apellidos?|nome|cognome"
    r"|gast|guests?(?! (?:status|type|category|segment|country|nationality|rating|score|count))"
    r"|contact|kontakt|booker|booked by|document|card|iban|vat|ip"
    r"|(?:loyalty|member|membership|customer|user) (?:id|no|nr|number)|user"
)
FREE_TEXT = r"notes?|comments?|remarks?|messages?|bemerkung\w*|notiz\w*|kommentar\w*|text|description|observaciones"

# A column of yes and no that says whether a booking was cancelled.
YES, NO = (
    frozenset({"1", "true", "yes", "y", "ja", "j", "x", "oui", "si"}),
    frozenset({"0", "false", "no", "n", "nein", "non"}),
)
_NO_SHOW = (
    r"(?:.* )?no ?show(?:s|ed)?(?: .*)?|nicht (?:erschienen|angereist|gekommen)|nichtanreise|did not arrive|not arrived"
    r"|no presentad[ao]|non presente|mancato arrivo|non presente?e?|noshow"
)
_KEPT = r"(?:not|non|nicht|no|un) ?(?:cancell?ed|storniert|annulee?|cancelad[ao])"
_NONE_YET = (
    r"(?:un)?confirmed|pending|in ?house|check(?:ed)? ?in|c i|ci|ckin|booked|reserved|open|upcoming|optional?|tentative"
    r"|definite|due (?:in|out)|expected|awaiting.*|new|guaranteed|wait ?list(?:ed)?|currently hosting"
    r"|arriv(?:ing|ed|al).*|accepted|active|future|ok|provisional|request(?:ed)?|bestatigt|offen|angereist|eingecheckt"
    r"|im haus|reserviert|gebucht|anfrage|angefragt|garantiert|option|fest|confirmee?|en attente|en cours"
    r"|arrivee?|reservee?|confirmad[ao]|pendiente|reservad[ao]|en casa|alojad[ao]"
    r"|confermat[ao]|in attesa|in casa|prenotat[ao]|pendente|hospedad[ao]"
)
_CANCELED = r"(?:.* )?(?:cancel\w*|storn\w*|annul\w*|anulad[ao]\w*|abgesagt|absage|cxl|xld|canc|geannuleerd)(?: .*)?"
_STAYED = (
    r"stayed|check(?:ed)? ?out|c o|co|ckot|departed|departure|completed?|past guest|past|fulfilled|honou?red|finished"
    r"|kept|hosted|abgereist|ausgecheckt|abgeschlossen|beendet|partie?|depart|terminee?|sejourne|finalizad[ao]|completad[ao]"
    r"|salid[ao]|partit[ao]|completat[ao]|concluid[ao]|uitgecheckt|vertrokken|closed"
)


def plain(name: str) -> str:
    """A name in small letters without accents, its words parted by one space; "# of adults" is a number."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("#", " number ").replace("ß", "ss"))
    bare = "".join(c for c in unicodedata.normalize("NFKD", parted) if not unicodedata.combining(c))
    return " ".join(re.findall(r"[a-z0-9]+", bare.casefold()))


def fit(patterns: tuple[str, ...], name: str) -> int | None:
    """The place of the first pattern that fits a plain name, None when none does."""
    return next((place for place, pattern in enumerate(patterns) if re.fullmatch(pattern, name)), None)


def later(name: str) -> str | None:
    """Why a column of this plain name is known later than the booking, None when nothing says so."""
    return next((why for pattern, why in LATER if _has(pattern, name)), None)


def personal(name: str) -> bool:
    return _has(PERSONAL, name)


def free_text(name: str) -> bool:
    return _has(FREE_TEXT, name)


def _has(pattern: str, name: str) -> bool:
    return re.search(rf"\b(?:{pattern})\b", name) is not None


def status(told: str) -> tuple[str, bool] | None:
    """Ours for their status, "" for none yet, and whether a person should look; None for an unknown one."""
    words = plain(told)
    if re.fullmatch(_NO_SHOW, words):
        return Status.NO_SHOW.value, False
    if re.fullmatch(_KEPT, words):
        return Status.STAYED.value, True
    if re.fullmatch(_STAYED, words):
        return Status.STAYED.value, False
    if re.fullmatch(_NONE_YET, words):
        return "", False
    return (Status.CANCELED.value, False) if re.fullmatch(_CANCELED, words) else None


def flag(told: str) -> str | None:
    """Whether a booking was cancelled, from a column of yes and no; None for another word."""
    word = plain(told)
    if word in YES:
        return Status.CANCELED.value
    return Status.STAYED.value if word in NO else None
