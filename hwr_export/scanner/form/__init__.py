"""Forms: a definition -> a printable sheet; a scanned page -> its fields, each accepted or referred to a person.

Torch-free; pages are looked at with OpenCV, which the extra `forms` brings.
"""
