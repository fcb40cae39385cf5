"""What the fusion does: layer weights, alignment of translations, tokenisation.

`results` holds plain data and needs no torch; everything else runs the model.
"""
