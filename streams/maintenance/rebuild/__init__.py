"""A schema made anew from the retained topic, beside the live one: filled, compared, swapped in."""
