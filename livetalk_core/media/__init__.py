"""Sound, pictures and video in and out; heavy libraries load when their first name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .atomic_file import AtomicFile, check_writable, leftover_recordings, make_folder, write_atomic
    from .envelope import best_lag, frame_loudness, loudness_envelope, scale_loudness
    from .fragments import FragmentWriter
    from .pictures import as_portrait, cover_and_crop, cropped_box, decode_picture, fit_size, load_picture
    from .plots import curves_plot, mouth_plot, panels_plot
    from .resample import Resampler
    from .sheet import ContactSheet, contact_sheet
    from .sound_reader import SoundInfo, SoundReader, array_sound, open_sound, probe_sound
    from .video_rate import read_video_at
    from .video_reader import VideoInfo, probe_video, read_video
    from .video_sound import read_video_sound
    from .video_writer import VideoWriter, check_output, frame_digest

__all__ = [
    "AtomicFile",
    "ContactSheet",
    "FragmentWriter",
    "Resampler",
    "SoundInfo",
    "SoundReader",
    "VideoInfo",
    "VideoWriter",
    "array_sound",
    "as_portrait",
    "best_lag",
    "check_output",
    "check_writable",
    "contact_sheet",
    "cover_and_crop",
    "cropped_box",
    "curves_plot",
    "decode_picture",
    "fit_size",
    "frame_digest",
    "frame_loudness",
    "leftover_recordings",
    "load_picture",
    "loudness_envelope",
    "make_folder",
    "mouth_plot",
    "open_sound",
    "panels_plot",
    "probe_sound",
    "probe_video",
    "read_video",
    "read_video_at",
    "read_video_sound",
    "scale_loudness",
    "write_atomic",
]

__getattr__ = lazy_names(
    __name__,
    {
        "atomic_file": ("AtomicFile", "check_writable", "leftover_recordings", "make_folder", "write_atomic"),
        "envelope": ("best_lag", "frame_loudness", "loudness_envelope", "scale_loudness"),
        "fragments": ("FragmentWriter",),
        "pictures": ("as_portrait", "cover_and_crop", "cropped_box", "decode_picture", "fit_size", "load_picture"),
        "plots": ("curves_plot", "mouth_plot", "panels_plot"),
        "resample": ("Resampler",),
        "sheet": ("ContactSheet", "contact_sheet"),
        "sound_reader": ("SoundInfo", "SoundReader", "array_sound", "open_sound", "probe_sound"),
        "video_rate": ("read_video_at",),
        "video_reader": ("VideoInfo", "probe_video", "read_video"),
        "video_sound": ("read_video_sound",),
        "video_writer": ("VideoWriter", "check_output", "frame_digest"),
    },
)
