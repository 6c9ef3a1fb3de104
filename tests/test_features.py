"""Sound and pictures to rows: the numbers that are promised, and real gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips_made import RATE, faces, speech, tone, write_clip

from lnln.data.errors import MissingPackageError, SettingsError
from lnln.features import (
    NoPicture,
    Plain,
    Sims,
    audio_extractor,
    muted,
    open_media,
    pool_frames,
    pool_times,
    read_pictures,
    read_sound,
)
from lnln.features.audio import COVAREP, MOSI_COVAREP
from lnln.features.gaps import is_clipped, is_frozen, touched
from lnln.features.media import Media

F0, VOICING, LEVEL, ZCR, MFCC0, MFCC1, MFCC2 = range(7)


def frames(sound: np.ndarray, missing: np.ndarray | None = None):
    nothing = np.zeros(len(sound), dtype=bool)
    return Plain().frames(sound, nothing if missing is None else missing)


def hertz(semitones: np.ndarray | float) -> np.ndarray:
    return 55 * 2 ** (np.asarray(semitones) / 12)


def pitch(sound: np.ndarray) -> float:
    return float(hertz(np.median(frames(sound)[0][:, F0])))


def noise(db: float, n: int = 2 * RATE, seed: int = 0) -> np.ndarray:
    size = 10 ** (db / 20)
    return np.random.default_rng(seed).normal(0, size, n).astype(np.float32)


def test_plain_makes_frames_of_40_ms_and_rows_of_four() -> None:
    made = [
        len(frames(np.zeros(n, np.float32))[0]) for n in (1, 639, 640, 959, 960, 16_000)
    ]
    assert made == [1, 1, 1, 1, 2, 49]
    assert frames(tone(220))[0].shape == (99, 17)
    rows, there = Plain()(tone(220), np.zeros(2 * RATE, dtype=bool))
    assert rows.shape == (25, 17) and there.all()
    assert Plain(25)(tone(220), np.zeros(2 * RATE, dtype=bool))[0].shape == (50, 17)


def test_plain_hears_the_pitch_of_tones_and_of_a_voice() -> None:
    for f in (70.0, 80.0, 110.0, 220.0, 440.0):
        values, _ = frames(tone(f))
        assert hertz(np.median(values[:, F0])) == pytest.approx(f, rel=1e-3)
        assert (values[:, VOICING] > 0.6).all()
    assert np.median(frames(tone(220))[0][:, F0]) == pytest.approx(24.0, abs=0.005)
    voice = sum(tone(150 * k, size=0.05) for k in range(1, 20))
    assert pitch(voice) == pytest.approx(149.96, rel=1e-3)


def test_plain_hears_pitch_in_noise_until_there_is_too_much() -> None:
    rng = np.random.default_rng(0)
    rng.normal(0, 0.1, 2 * RATE)
    found = []
    for db in (20, 10, 5, 0):
        loud = 0.3 / np.sqrt(2) * 10 ** (-db / 20)
        values, _ = frames(tone(220) + rng.normal(0, loud, 2 * RATE).astype(np.float32))
        found.append(np.median(values[:, F0]))
    assert hertz(found[:3]) == pytest.approx([220.0, 220.4, 223.6], rel=1e-3)
    assert found[3] == 0
    assert (frames(noise(-20))[0][:, VOICING] == 0).all()


def test_plain_values_of_a_tone() -> None:
    values, _ = frames(tone(220))
    assert values[49, [MFCC1, MFCC2]] == pytest.approx([150.9, 105.3], abs=0.1)
    assert values[49, ZCR] == pytest.approx(0.027, abs=0.001)
    # The reference is the level of the loudest frames: -13.4 dBFS.
    rms = np.array([np.sqrt(np.mean(tone(220)[i : i + 640] ** 2)) for i in (0, 9600)])
    level = 20 * np.log10(rms) - values[[0, 30], LEVEL]
    assert level == pytest.approx([-13.4, -13.4], abs=0.1)


def test_plain_of_silence_and_of_a_constant() -> None:
    for sound in (np.zeros(2 * RATE, np.float32), np.full(2 * RATE, 0.2, np.float32)):
        values, _ = frames(sound)
        assert values[:, LEVEL] == pytest.approx(-60.0)
        assert values[:, MFCC0] == pytest.approx(-505.96, abs=0.01)
        rest = np.delete(values, [LEVEL, MFCC0], axis=1)
        assert np.abs(rest).max() < 1e-4


def test_plain_does_not_mind_gain() -> None:
    sound = speech()
    nothing = np.zeros(len(sound), dtype=bool)
    loud, _ = Plain()(sound, nothing)
    for gain, most in ((0.5, 3e-5), (0.1, 3e-4)):
        quiet, _ = Plain()((gain * sound).astype(np.float32), nothing)
        assert np.abs(loud - quiet).max() < most


def test_a_muted_tone_loses_the_frames_that_touch_it_and_no_other() -> None:
    sound = tone(220)
    sound[8000:16_000] = 0
    missing = muted(sound, RATE)
    values, there = frames(sound, missing)
    assert np.flatnonzero(~there).tolist() == list(range(24, 50))
    rows, present = Plain()(sound, missing)
    assert np.flatnonzero(~present).tolist() == list(range(6, 12))
    assert not rows[~present].any()
    change = np.abs(values - frames(tone(220))[0])[there]
    others = [c for c in range(17) if c not in (LEVEL, MFCC0)]
    assert change[:, others].max() < 1e-4
    shift = change[:, LEVEL].max()
    assert change[:, MFCC0] == pytest.approx(shift * np.sqrt(40), abs=1e-3)


def test_muted_speech_changes_nothing_else_but_the_reference() -> None:
    sound = speech()
    whole, _ = frames(sound)
    sound[RATE : RATE + RATE // 2] = 0
    values, there = frames(sound, muted(sound, RATE))
    assert (len(values), (~there).sum()) == (112, 26)
    change = (values - whole)[there]
    unclamped = change[values[there, LEVEL] > -59]
    shift = np.median(unclamped[:, LEVEL])
    assert unclamped[:, LEVEL] == pytest.approx(shift, abs=1e-4)
    assert change[:, MFCC0] == pytest.approx(shift * np.sqrt(40), abs=5e-3)
    others = [c for c in range(17) if c not in (LEVEL, MFCC0)]
    assert np.abs(change[:, others]).max() < 1e-4


def test_what_counts_as_muted() -> None:
    for length, flagged in ((0.19, 0), (0.2, 3200)):
        sound = noise(-20)
        sound[1600 : 1600 + round(length * RATE)] = 0
        assert muted(sound, RATE).sum() == flagged
    shares = [muted(noise(db), RATE).mean() for db in (-90, -80, -60)]
    assert shares == [1, 0, 0]


def test_rows_need_half_of_their_frames() -> None:
    values = np.arange(10, dtype=np.float32)[:, None]
    available = np.array([1, 1, 0, 0, 1, 0, 0, 0, 1, 0], dtype=bool)
    rows, there = pool_frames(values, available, 4)
    assert rows[:, 0].tolist() == [0.5, 0, 8] and there.tolist() == [True, False, True]
    rows, there = pool_frames(values, available, 4, least=0)
    assert rows[:, 0].tolist() == [0.5, 4, 8] and there.all()


def test_rows_by_time_know_slow_cameras_from_ones_that_stopped() -> None:
    times = np.arange(0, 1, 0.1)
    values = np.arange(10, dtype=np.float32)[:, None]
    seen = np.ones(10, dtype=bool)
    rows, there = pool_times(values, seen, times, 12.5, 25)
    # At 10 pictures a second some rows of 80 ms begin none: they show the last one.
    assert rows[:13, 0].tolist() == [0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, 9, 9]
    assert there[:14].all() and not there[14:].any() and not rows[14:].any()
    rows, _ = pool_times(values, seen, times + 0.17, 12.5, 4)
    assert rows[:, 0].tolist() == [0, 0, 0, 1]
    seen[4] = False
    assert np.flatnonzero(~pool_times(values, seen, times, 12.5, 14)[1]).tolist() == [5]


def test_what_is_noted_only() -> None:
    loud = np.clip(5 * tone(220), -1, 1)
    assert is_clipped(loud, RATE) and not is_clipped(tone(220, size=0.99), RATE)
    times = np.arange(25) / 25
    values = np.arange(25, dtype=np.float32)[:, None]
    seen = np.ones(25, dtype=bool)
    assert not is_frozen(values, seen, times)
    values[3:15] = 7
    assert not is_frozen(values, seen, times)  # 0.44 s
    values[3:17] = 7
    assert is_frozen(values, seen, times)
    mask = np.zeros(100, dtype=bool)
    mask[50] = True
    found = touched(mask, np.array([0, 40, 51, -9]), np.array([50, 51, 200, 500]))
    assert found.tolist() == [False, True, False, True]


def heard(path: Path, rate: int = RATE) -> tuple[Media, np.ndarray, np.ndarray]:
    media = open_media(path)
    return media, *read_sound(media, rate)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.mp4", "a.webm"])
def test_every_container_gives_the_same_length_and_pitch(
    tmp_path: Path, name: str
) -> None:
    rate = 48_000 if name == "a.webm" else 22_050
    media, sound, missing = heard(
        write_clip(tmp_path / name, tone(220, rate=rate), rate)
    )
    assert len(sound) == 32_000 and not missing.any()
    assert media.duration == pytest.approx(2.0, abs=1e-3)
    assert pitch(sound) == pytest.approx(220.0, rel=1e-3)
    # Unless a codec's delay is known, sound would begin late.
    assert np.abs(sound[:320]).max() > 0.1


def test_channels_are_averaged(tmp_path: Path) -> None:
    both = np.stack([tone(220), np.zeros(2 * RATE, np.float32)])
    _, sound, _ = heard(write_clip(tmp_path / "a.wav", both))
    assert np.abs(sound).max() == pytest.approx(0.15, abs=0.002)


def test_a_stretch_is_what_the_whole_holds_there(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", speech(4), pictures=faces(100))
    media, whole, _ = heard(path)
    part, missing = read_sound(media, RATE, 2.0, 3.5)
    assert len(part) == 24_000 and not missing.any()
    assert np.abs(part - whole[32_000:56_000]).max() < 1e-3
    ((pictures, times),) = read_pictures(media, 2.0, 3.5)
    assert times == pytest.approx(np.arange(38) * 0.04)
    ((every, _),) = read_pictures(media)
    assert (pictures == every[50:88]).all()


def test_sound_that_begins_late_is_missing_until_then(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.mp4", tone(220, 1.0), pictures=faces(50), sound_at=0.6
    )
    media, sound, missing = heard(path)
    assert media.duration == pytest.approx(2.0, abs=0.01)
    spans = np.flatnonzero(~missing) / RATE
    # AAC puts 64 ms in front.
    assert spans[[0, -1]] == pytest.approx([0.6, 1.6], abs=0.07)
    assert not sound[missing].any()
    there = Plain()(sound, missing)[1]
    assert np.flatnonzero(there)[[0, -1]] == pytest.approx([8, 19], abs=1)


def test_pictures_have_the_times_of_the_file(tmp_path: Path) -> None:
    media = open_media(write_clip(tmp_path / "a.mp4", pictures=faces(50)))
    ((pictures, times),) = read_pictures(media)
    assert pictures.shape == (50, 48, 48, 3) and times[-1] == pytest.approx(1.96)
    values = pictures.mean(axis=(1, 2, 3))[:, None]
    rows, there = pool_times(values, np.ones(50, bool), times, 12.5, 25)
    assert len(rows) == 25 and there.all()
    assert media.sound is False and not np.any(read_sound(media, RATE)[0])


def test_pictures_are_turned_as_phones_say(tmp_path: Path) -> None:
    picture = np.zeros((10, 48, 64, 3), dtype=np.uint8)
    picture[:, :12] = 255  # a bar at the top
    path = write_clip(tmp_path / "a.mp4", pictures=picture)
    content = bytearray(path.read_bytes())
    # The track's matrix, for a quarter turn clockwise: 16.16 fixed point.
    place = content.index(b"tkhd") + 4 + 40
    one, minus, zero = b"\0\1\0\0", b"\xff\xff\0\0", b"\0\0\0\0"
    content[place : place + 20] = zero + one + zero + minus + zero
    path.write_bytes(content)
    ((turned, _),) = read_pictures(open_media(path))
    assert turned.shape == (10, 64, 48, 3)
    # The top went to the right.
    assert turned[0, :, -8:].mean() > 200 and turned[0, :, :8].mean() < 50


def test_a_cover_of_a_song_is_no_picture(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp3", tone(220), pictures=faces(1), cover=True)
    media = open_media(path)
    assert media.sound and not media.picture
    assert media.duration == pytest.approx(2.0)


@pytest.mark.filterwarnings("ignore:n_fft", "ignore:Trying to estimate")
def test_sims_columns_are_those_of_librosa() -> None:
    pytest.importorskip("librosa")
    sims = Sims()
    sound = tone(220, rate=sims.sample_rate)
    nothing = np.zeros(len(sound), dtype=bool)
    rows, there = sims(sound, nothing)
    assert rows.shape == (87, 33) and there.all()
    assert rows[40, 0] == pytest.approx(0.0200, abs=1e-4)
    assert rows[40, 1:5] == pytest.approx([-526.7, 61.4, 53.3, 40.9], abs=0.1)
    assert rows[40, 21:].argmax() == 9 and rows[40, 21:].max() == pytest.approx(1.0)
    silent, _ = sims(np.zeros_like(sound), nothing)
    assert silent[:, 1] == pytest.approx(-1131.371, abs=1e-3)
    assert not np.delete(silent, 1, axis=1).any()
    # Detected, silence is no loud message but a gap.
    rows, there = sims(np.zeros_like(sound), ~nothing)
    assert not rows.any() and not there.any()


def test_egemaps_columns_are_those_of_opensmile() -> None:
    pytest.importorskip("opensmile")
    egemaps = audio_extractor("egemaps")
    nothing = np.zeros(2 * RATE, dtype=bool)
    rows, _ = egemaps(tone(220), nothing)
    assert rows.shape == (196, 25)
    place = [i for i, c in enumerate(egemaps.columns) if c.startswith("F0semitone")]
    assert np.median(rows[:, place]) == pytest.approx(35.978, abs=1e-3)
    silent, _ = egemaps(np.zeros(2 * RATE, np.float32), nothing)
    assert silent.any(axis=1).all()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name, package in (("sims", "librosa"), ("egemaps", "opensmile")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingPackageError, match=f"pip install {package}"):
            audio_extractor(name)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'lnln\[features\]'"):
        open_media(Path("any.mp4"))


def test_a_rate_that_splits_frames_is_refused() -> None:
    for rate in (12.0, 0.0, 100.0):
        with pytest.raises(SettingsError, match="divide 50"):
            Plain(rate)
    with pytest.raises(SettingsError, match="choose from plain"):
        audio_extractor("loud")


def test_what_is_left_out_is_missing_over_the_whole_length() -> None:
    rows, there = audio_extractor("none")(tone(220), np.zeros(2 * RATE, dtype=bool))
    assert rows.shape == (25, 1) and not there.any() and not rows.any()
    assert NoPicture().columns == ("none",)


def test_covarep_columns_of_the_published_files() -> None:
    assert len(COVAREP) == len(set(COVAREP)) == 74
    assert MOSI_COVAREP == ("VUV", "QOQ", "MDQ", "MCEP_14", "HMPDM_24")
