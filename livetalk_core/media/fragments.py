"""Frames and sound as fragmented MP4, chunk by chunk: each fragment can be played as soon as it is there."""

from __future__ import annotations

from typing import Any

import av

from .encoders import AAC_BIT_RATE, AAC_RATE, Frames, SoundQueue, sound_block, sound_encoder, video_encoder, yuv_picture
from .mp4_boxes import (
    SOUND_TRACK,
    VIDEO_TRACK,
    Run,
    Sample,
    SoundTrack,
    VideoTrack,
    fragment,
    init_segment,
    length_prefixed,
    video_codec,
)
from .resample import Resampler, Samples

_UNITS = 512
"""Units of time per picture; players round less well at coarse timescales."""

_AAC_CODEC = "mp4a.40.2"


class FragmentWriter:
    """Encode frames and mono sound as H.264 and AAC in fragmented MP4.

    Made for a live view with Media Source Extensions: create a source buffer for `content_type`, append `head`,
    then any fragment and all after it. Each call of `write` gives one fragment that begins with a key frame and
    holds all its pictures, so that a viewer may join at each; the sound in it ends up to 70 ms (three AAC blocks and
    the resampler) before the pictures and goes on in the next one.

    Nothing is kept: memory does not grow with the stream. Not for several threads at once.

    Args:
        width, height: Frame size in pixels, even numbers.
        fps: Frames per second.
        sample_rate: Samples per second of the sound that will be written.
        first_frame: Number of the first frame within the stream: its time.

    Attributes:
        head: The initialisation segment, which every player needs first.
        content_type: MIME type with the codecs of both tracks.

    Raises:
        MissingDependencyError: the installed PyAV has no H.264 encoder.
    """

    def __init__(
        self,
        width: int,
        height: int,
        fps: int,
        sample_rate: int = 16_000,
        first_frame: int = 0,
    ) -> None:
        self.fps = fps
        self._video = video_encoder(width, height, fps)
        self._sound = sound_encoder()
        self._queue = SoundQueue(sample_rate, fps)
        self._resampler = Resampler(sample_rate, AAC_RATE)
        self._frames_in = self._sound_in = self._number = 0
        # Encoded, and in no fragment yet: an interruption between two pictures must not lose the first.
        self._pictures: list[Any] = []
        self._blocks: list[Any] = []
        # In the units of either track; the sound's first block is the encoder's lead-in, which players skip.
        self._picture_time, self._sound_time = first_frame * _UNITS, round(first_frame / fps * AAC_RATE)
        headers = bytes(self._video.extradata)
        self.content_type = f'video/mp4; codecs="{video_codec(headers)}, {_AAC_CODEC}"'
        self.head = init_segment(
            VideoTrack(width, height, fps * _UNITS, headers),
            SoundTrack(AAC_RATE, bytes(self._sound.extradata), self._sound.frame_size, AAC_BIT_RATE),
        )

    def write(self, frames: Frames, samples: Samples | None = None) -> bytes:
        """The fragment of frames uint8 [F, H, W, 3] and of sound that goes on from where it ended, float32 [n].

        Sound ahead of the pictures waits for them, as in `VideoWriter`. Empty for no frames and no sound.
        """
        if samples is not None:
            self._queue.push(samples)
        for index, pixels in enumerate(frames):
            picture = yuv_picture(pixels, self._frames_in, self.fps)
            if not index:
                picture.pict_type = av.video.frame.PictureType.I
            self._pictures += self._video.encode(picture)
            self._frames_in += 1
        self._encode_sound(self._resampler.push(self._queue.take(self._frames_in)))
        return self._fragment()

    def finish(self) -> bytes:
        """What the encoders still hold; the sound is then exactly as long as the pictures."""
        self._encode_sound(self._resampler.push(self._queue.take(self._frames_in, pad=True)))
        self._encode_sound(self._resampler.finish())
        self._pictures += self._video.encode(None)
        self._blocks += self._sound.encode(None)
        return self._fragment()

    def _encode_sound(self, block: Samples) -> None:
        if len(block):
            self._blocks += self._sound.encode(sound_block(block, self._sound_in, AAC_RATE, "fltp"))
            self._sound_in += len(block)

    def _fragment(self) -> bytes:
        (pictures, self._pictures), (blocks, self._blocks) = (self._pictures, []), (self._blocks, [])
        runs = []
        if pictures:
            samples = [Sample(length_prefixed(bytes(p)), _UNITS, bool(p.is_keyframe)) for p in pictures]
            runs.append(Run(VIDEO_TRACK, self._picture_time, samples))
            self._picture_time += _UNITS * len(samples)
        if blocks:
            samples = [Sample(bytes(p), int(p.duration)) for p in blocks]
            runs.append(Run(SOUND_TRACK, self._sound_time, samples))
            self._sound_time += sum(sample.duration for sample in samples)
        if not runs:
            return b""
        self._number += 1
        return fragment(self._number, runs)
