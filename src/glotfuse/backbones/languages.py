"""ISO 639-3 to two-letter codes, for tokenizers that name languages in the short form (M2M100, mBART)."""

from __future__ import annotations

TWO_LETTER_CODES: dict[str, str] = dict(
    pair.split(":")
    for pair in (  # noqa: SIM905 - a list of two hundred strings is no easier to read
        "afr:af amh:am arb:ar ara:ar asm:as ast:ast azj:az aze:az bak:ba bel:be ben:bn bos:bs bul:bg cat:ca ceb:ceb "
        "ces:cs cym:cy dan:da deu:de ell:el eng:en epo:eo est:et eus:eu fas:fa pes:fa fin:fi fra:fr fuv:ff ful:ff "
        "fry:fy gla:gd gle:ga glg:gl guj:gu hat:ht hau:ha heb:he hin:hi hrv:hr hun:hu hye:hy ibo:ig ilo:ilo ind:id "
        "isl:is ita:it jav:jv jpn:ja kan:kn kat:ka kaz:kk khm:km kir:ky kor:ko ckb:ku kmr:ku lao:lo lvs:lv lav:lv "
        "lin:ln lit:lt ltz:lb lug:lg mal:ml mar:mr mkd:mk mlg:mg plt:mg mon:mn khk:mn mya:my npi:ne nep:ne nld:nl "
        "nob:no nno:nn nso:ns nya:ny oci:oc ory:or pan:pa pbt:ps pus:ps pol:pl por:pt ron:ro rus:ru sin:si slk:sk "
        "slv:sl sna:sn snd:sd som:so sot:st spa:es als:sq sqi:sq srp:sr ssw:ss sun:su swe:sv swh:sw swa:sw tam:ta "
        "tel:te tgk:tg tgl:tl tha:th tir:ti tsn:tn tur:tr uig:ug ukr:uk urd:ur uzn:uz uzb:uz vie:vi wol:wo xho:xh "
        "ydd:yi yid:yi yor:yo zho:zh zsm:ms msa:ms zul:zu"
    ).split()
)
"""Three-letter code to the code that M2M100 and mBART use."""
