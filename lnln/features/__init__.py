"""From a clip to features: sound, picture and words, with what is really missing.

`extract` turns a table of clips into a data set; `write_mmsa` writes it. An extractor
of one's own is any object of the form of `VisionExtractor` or `AudioExtractor`.
"""

from lnln.features.audio import (
    AudioExtractor,
    Egemaps,
    NoSound,
    Plain,
    Sims,
    audio_extractor,
)
from lnln.features.clips import Clip, read_clips
from lnln.features.extraction import Extraction, extract
from lnln.features.gaps import muted, pool_frames, pool_times
from lnln.features.media import open_media, read_pictures, read_sound
from lnln.features.vision import (
    MediaPipe,
    NoPicture,
    OpenFace,
    Table,
    Track,
    VisionExtractor,
)
from lnln.features.words import Word, as_sentence, read_words, split_text

__all__ = [
    "AudioExtractor",
    "Clip",
    "Egemaps",
    "Extraction",
    "MediaPipe",
    "NoPicture",
    "NoSound",
    "OpenFace",
    "Plain",
    "Sims",
    "Table",
    "Track",
    "VisionExtractor",
    "Word",
    "as_sentence",
    "audio_extractor",
    "extract",
    "muted",
    "open_media",
    "pool_frames",
    "pool_times",
    "read_clips",
    "read_pictures",
    "read_sound",
    "read_words",
    "split_text",
]
