"""Frames and sound as fragmented MP4, chunk by chunk, for players that watch while a video is made."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from .resample import Resampler
from .video_writer import h264_encoder

_SOUND_RATE = 48_000
_FRAGMENT = "40000"
"""Microseconds. Not frag_every_frame: with it FFmpeg counts the first frame twice."""


class FragmentWriter:
    """Encodes chunks into pieces that a Media Source player can append.

    A reader may begin with any piece, after the head: its first frame is a key frame, but for up to two frames of
    the chunk before, which wait until their sound is encoded and which players skip.

    Args:
        width, height: Frame size, even.
        fps: Frames per second.
        sample_rate: Samples per second of the sound that will be written.
        first_frame: Number of the first frame within the stream: its time.

    Attributes:
        head: What every reader has to get first.
        content_type: MIME type with the codecs of both tracks.
    """

    def __init__(self, width: int, height: int, fps: int, sample_rate: int, first_frame: int = 0) -> None:
        self.fps = fps
        self._pipe = _Pipe()
        options = {"movflags": "empty_moov+default_base_moof", "frag_duration": _FRAGMENT, "flush_packets": "1"}
        self._container = av.open(self._pipe, "w", format="mp4", options=options)
        self._video = self._add_video(width, height)
        self._sound = self._container.add_stream("aac", rate=_SOUND_RATE, layout="mono")
        self._sound.bit_rate = 96_000
        self._resampler = Resampler(sample_rate, _SOUND_RATE)
        self._frame, self._sound_pts = first_frame, round(first_frame / fps * _SOUND_RATE)
        self._container.start_encoding()
        self.head = self._pipe.take()
        self.content_type = f'video/mp4; codecs="{_avc_name(self.head)}, mp4a.40.2"'

    def write(self, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> bytes:
        """The piece for frames [F,H,W,3] and the sound [S] that goes with them."""
        for index, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=av.video.reformatter.Colorspace.ITU709)
            picture.pts, picture.time_base = self._frame, Fraction(1, self.fps)
            picture.pict_type = av.video.frame.PictureType.I if index == 0 else av.video.frame.PictureType.NONE
            self._frame += 1
            self._mux(self._video.encode(picture))
        self._encode_sound(self._resampler.push(np.asarray(samples, np.float32)))
        return self._pipe.take()

    def finish(self) -> bytes:
        """What was still on its way."""
        self._encode_sound(self._resampler.finish())
        self._mux(self._video.encode(None))
        self._mux(self._sound.encode(None))
        self._container.close()
        return self._pipe.take()

    def _add_video(self, width: int, height: int) -> Any:
        name = h264_encoder()
        options = {"tune": "zerolatency", "preset": "ultrafast", "crf": "20"} if name == "libx264" else {"b": "4M"}
        stream = self._container.add_stream(name, rate=self.fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        codec = stream.codec_context
        codec.time_base = Fraction(1, self.fps)
        codec.max_b_frames = 0
        codec.gop_size = 60 * self.fps  # key frames where chunks begin, and nowhere else
        codec.thread_count = 1
        return stream

    def _encode_sound(self, block: NDArray[np.float32]) -> None:
        if not len(block):
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _SOUND_RATE, self._sound_pts, Fraction(1, _SOUND_RATE)
        self._sound_pts += len(block)
        self._mux(self._sound.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if packet.stream is self._video and not packet.duration:
                packet.duration = 1
            # The encoder's lead-in lies before time 0; kept, it would shift everything else.
            if packet.pts >= 0:
                self._container.mux(packet)


class _Pipe:
    """A file that can only be written; what was written is taken out in pieces."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _avc_name(head: bytes) -> str:
    """The codec's name in the form that players ask for, from the decoder configuration in the head."""
    at = head.find(b"avcC")
    profile = head[at + 5 : at + 8] if at >= 0 else b"\x42\xc0\x1e"
    return "avc1." + profile.hex()
