"""Requests and what answers them, stage by stage, as the order in docs/locales.md demands.

A line is `request | published | answer`, with the distance behind the answer where it is not 0.
"""

from __future__ import annotations

import pytest

from isogloss.registry.resolution import LocaleResolver

BY_STAGE = {
    "exact": """
        iw | iw,he | iw
        sr-ME | sr-Latn-RS,sr-ME | sr-ME
        x-bern | und-x-bern | und-x-bern
        fr-u-ca-buddhist | fr | fr
    """,
    "alias": """
        IW_il | he-IL | he-IL
        in | id | id
        ji | yi | yi
        tw | ak | ak
        ak | tw | tw
        fil | tl | tl
        cmn | zh | zh
        cmn-TW | zh-TW | zh-TW
        quz | qu | qu
        swc | sw,sw-CD | sw-CD
        prs | fa,fa-AF | fa-AF
        sh | sr-Latn | sr-Latn
        sr-YU | sr-RS | sr-RS
        zh-min-nan | nan,zh | nan
        zh-hakka | hak | hak
        no-nyn | nn | nn
        no-bok | nb | nb
        arb-EG | ar-EG | ar-EG
        en-GB-oed | en-GB-oxendict,en-GB | en-GB-oxendict
        root | und,en | und
        mo | ro-MD,ro | ro
        mo-MD | ro-MD,ro | ro-MD
        als | sq | sq
        ru-SU | ru-RU | ru-RU
        hy-SU | hy-AM | hy-AM
        i-lux | lb | lb
        gom | kok | kok
        zh-guoyu | zh | zh
        zh-cmn-Hans | zh-Hans | zh-Hans
        sgn-US | ase | ase
    """,
    "equivalent": """
        in-ID | id | id
        cmn-TW | zh,zh-Hant | zh-Hant
        sr-Cyrl | sr | sr
        zh-CN | zh-Hans | zh-Hans
        uz-AF | uz,uz-Arab | uz-Arab
        az-IR | az,az-Arab | az-Arab
        pa-Arab | pa-PK,pa | pa-PK
        hi-Latn | en-IN,hi-Latn-IN | hi-Latn-IN
        no | no-NO | no-NO
        en | en-US | en-US
        es-ES | es | es
        pt-BR | pt | pt
        arb-EG | ar | ar
        ca-ES-valencia | ca-valencia,ca-ES | ca-valencia
        gsw-x-bern | gsw-CH-x-bern | gsw-CH-x-bern
        und-Hant | zh,zh-TW | zh-TW
        und-IN | hi,en | hi
        und-BR | pt | pt
        und-Cyrl | ru | ru
        und-419 | es-419,es | es-419
        de-DD | de | de
    """,
    "drop-private": """
        de-1996-x-a | de-1996,de | de-1996
        gsw-CH-x-bern | gsw,gsw-x-zurich | gsw
        gsw-x-bern-city | gsw-x-bern,gsw | gsw-x-bern
        de-AT-u-co-phonebk-x-a | de-AT | de-AT
        i-default | en | en
    """,
    "drop-variant": """
        ca-valencia | ca | ca
        ca-FR-valencia | ca,ca-FR | ca-FR
        en-GB-oed | en,en-GB | en-GB
        de-1996-x-a | de-x-a,de | de
        de-1901-1996 | de-1901,de-1996 | de-1901
    """,
    "parent": """
        sh-ME | sr,sr-Latn | sr-Latn 4
        zh-AU | zh,zh-Hant | zh-Hant 4
        zh-HK | zh,zh-Hant | zh-Hant 5
        zh-MO | zh-Hant-HK,zh-TW | zh-Hant-HK 4
        nb | nn,no | no 1
        nb-SJ | no | no 5
        nn-NO | nb,no | no 20
        en-DE | en-150,en-001 | en-150 4
        en-DE | en-GB,en-001 | en-001 5
        es-US | es-419,es-MX | es-419 4
        es-MX-x-norte | es,es-419 | es-419 4
    """,
    "region": """
        swc | sw | sw 4
        prs | fa | fa 4
        sr-Cyrl-ME | sr,sr-Latn | sr 4
        zh-SG | zh,zh-Hant | zh 4
        zh-AU | zh,zh-TW | zh-TW 4
        zh-HK | zh-MO,zh-TW | zh-MO 4
        kk-Cyrl-CN | kk | kk 4
        nn | nb,nn-SJ | nn-SJ 4
        gsw | gsw-LI,de-CH | gsw-LI 4
        en-US | en-GB,en-CA | en-CA 4
        en-CA | en,en-001 | en 4
        en-AU | en,en-GB | en-GB 3
        en-AU | en-NZ,en-IE | en-IE 4
        en-GB | en-AU,en-US | en-AU 3
        en-ZA | en-GB,en-AU,en | en-GB 3
        en-PR | en-GB,en | en 4
        es | es-MX,es-419 | es-419 5
        es-419 | es-MX,es | es-MX 4
        es-GQ | es,es-419,es-AR | es 4
        es-AR | es-UY,es-CL | es-CL 4
        pt | pt-PT | pt-PT 5
        pt-PT | pt-AO,pt | pt-AO 4
        pt-US | pt,pt-PT | pt 4
        fr-CH | fr-CA,fr-BE | fr-BE 4
        de-LI | de-CH,de-AT | de-AT 4
        de-BE | de,de-DE | de 4
        ar-MA | ar-DZ,ar | ar-DZ 4
        ar-MA | ar,ar-SA | ar 5
        ar-SA | ar-EG,ar-MA,ar-AE | ar-EG 4
        und-MX | es | es 5
        ro-MD | ro | ro 4
        sq-XK | sq | sq 4
        kk-Cyrl-CN | kk,kk-Arab | kk 4
        uz-Latn-AF | uz,uz-Arab | uz 4
        zh-Hans-TW | zh,zh-Hant | zh 4
        zh-Hans-HK | zh-SG,zh-TW | zh-SG 4
        zh-Hant-CN | zh,zh-TW | zh-TW 4
        pa-Guru-PK | pa,pa-PK | pa 4
    """,
    "script": """
        sh | sr | sr 5
        sr-ME | sr | sr 9
        ja-Hira | ja | ja 5
        ko-Hang | ko | ko 5
    """,
    "language": """
        hr | bs,sr-Latn | bs 8
        hr-BA | bs | bs 4
        wuu | zh | zh 10
        yue-Hans | zh,zh-Hant | zh 10
        uzs | uz,uz-Arab | uz-Arab 10
        azb | az-Arab | az-Arab 10
        nn | nb | nb 20
        no | nb,nn | nb 1
        no-NO | nb | nb 1
        da | nb,no | nb 12
        sk-CZ | cs | cs 20
        sk | cs-SK | cs-SK 20
        lb | de,fr | de 8
        gsw | de-CH,de | de-CH 4
        id | ms | ms 14
        ary | ar-DZ,ar | ar 14
        ary-MA | ar-MA,ar | ar-MA 10
        apc | ar | ar 14
        knn | kok | kok 10
        aii | syr | syr 10
    """,
    "default": """
        fr | und,en | und
    """,
    "base": """
        hr | sr-Latn
        bs-Cyrl | sr
        bs-Cyrl | bs
        zh | zh-Hant
        zh-Latn | zh
        zh-Hani | zh
        wuu | zh-Hant
        yue | yue-Hans
        zh | yue
        uz-Cyrl | uz
        azb | az
        kk-CN | kk
        ms-Arab | ms
        hi-Latn | hi
        en-Shaw | en,en-GB
        ja | ja-Hira
        ko | ko-Hang
        da | nn
        de | gsw
        de-CH | gsw
        ms | id,zlm
        ca | ca-valencia
        de-x-bern | gsw,x-bern
        und-US | en,en-US
        und-Latn | en
        und-Latn-US | en
        und | en
        ht | fr-HT
        is | en,da
        fo | da
        pcm | en
        af | nl,en
        ckb | ku,ar
        kok-Latn | kok
        mn-CN | mn
        sl-1994-rozaj | sl-rozaj
    """,
}

# With the stage behind the answer, and `-` where nothing may answer.
LISTS_AND_HEADERS = """
    fr;q=0.5, gsw | de,fr | fr exact 0
    gsw, fr;q=0.5 | de,fr | fr exact 0
    de-AT,de-CH | de-CH,de | de region 4
    en-AU,en-GB | en-GB,en | en-GB region 3
    es-MX,en | es,en | es region 5
    es-MX,es-419 | es-419 | es-419 parent 4
    zh-HK,en | zh,en | en exact 0
    ta,is,ht | en,fr | -
    ta,is,ht | en,fr,und | und default
    nn,da | no,da | da exact 0
    en;q=0 | en | -
    *;q=0, de | de,fr | de exact 0
    de-CH, de;q=0 | de | -
    en-GB;q=0.8, en;q=0 | en-US,en-GB | en-GB exact 0
    * | de | -
"""


def cases() -> list[tuple[str, str, str, str]]:
    found = []
    for stage, lines in BY_STAGE.items():
        for line in filter(None, map(str.strip, lines.splitlines())):
            request, published, *answer = line.split(" | ")
            found.append((request, published, stage, answer[0] if answer else ""))
    return found


@pytest.mark.parametrize(("request_", "published", "stage", "expected"), cases())
def test_stages(request_: str, published: str, stage: str, expected: str) -> None:
    match = LocaleResolver(published.split(",")).resolve(request_)
    answer = " ".join(filter(None, [match.locale, str(match.distance or "")]))
    assert (match.stage, answer) == (stage, expected), match.trace
    assert (match.distance is None) == (stage in {"default", "base"})


@pytest.mark.parametrize("line", LISTS_AND_HEADERS.strip().splitlines())
def test_lists_and_headers(line: str) -> None:
    request, published, expected = line.strip().split(" | ")
    match = LocaleResolver(published.split(",")).resolve(request)
    distance = "" if match.distance is None else str(match.distance)
    answer = " ".join(filter(None, [match.locale, match.stage, distance]))
    assert answer == ("base" if expected == "-" else expected), match.trace
