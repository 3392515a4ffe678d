"""Music: Bach's four-part chorales as grids of pitches, and MIDI files to listen to them.

chorales    the grids, as token ids and as text, with whole families of melodies held out
midi        a grid as a MIDI file
"""
