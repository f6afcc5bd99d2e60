// Fragmented MP4 of any length into a video element, in bounded memory, through Media Source Extensions.

export const LIMITS = {
  behind: 60, // seconds kept of what has been played
  ahead: 120, // seconds kept ready; of a stream that is made faster than it plays, the rest is left out
  resume: 10, // seconds left to play when it goes on with what is being made then
};

// Cuts bytes, which arrive in any portions, into what can be appended or left out as a whole: the head (everything up
// to `moov`) and fragments (up to `mdat`).
export class Fragments {
  constructor() {
    this.bytes = new Uint8Array();
  }

  *push(portion) {
    const joined = new Uint8Array(this.bytes.length + portion.length);
    joined.set(this.bytes);
    joined.set(portion, this.bytes.length);
    const view = new DataView(joined.buffer);
    let begin = 0;
    let box = 0;
    while (box + 8 <= joined.length && box + view.getUint32(box) <= joined.length) {
      const kind = String.fromCharCode(...joined.subarray(box + 4, box + 8));
      box += Math.max(8, view.getUint32(box));
      if (kind !== "moov" && kind !== "mdat") continue;
      yield joined.subarray(begin, box);
      begin = box;
    }
    this.bytes = joined.slice(begin);
  }
}

// A source buffer that drops what has been played and never overflows.
class Buffer {
  constructor(buffer, video, limits) {
    Object.assign(this, { buffer, video, limits, full: false });
  }

  async add(piece) {
    const ahead = this.end() - this.video.currentTime;
    this.full = ahead > (this.full ? this.limits.resume : this.limits.ahead);
    if (this.full) return;
    await this.drop(this.limits.behind);
    if (!(await this.append(piece))) {
      await this.drop(1);
      await this.append(piece); // or it is left out
    }
    this.skipGap();
  }

  async append(piece) {
    try {
      this.buffer.appendBuffer(piece);
    } catch (error) {
      if (error.name === "QuotaExceededError") return false;
      throw error;
    }
    await settled(this.buffer);
    return true;
  }

  async drop(keep) {
    const until = this.video.currentTime - keep;
    const ranges = this.buffer.buffered;
    if (!ranges.length || ranges.start(0) >= until) return;
    this.buffer.remove(0, until);
    await settled(this.buffer);
  }

  end() {
    const ranges = this.buffer.buffered;
    return ranges.length ? ranges.end(ranges.length - 1) : 0;
  }

  // Where nothing is buffered (before a late joiner's first picture, between pieces that were left out), go on at the
  // next picture; a viewer who winds back too far comes to the oldest one.
  skipGap() {
    const { buffered: ranges } = this.buffer;
    const now = this.video.currentTime;
    // Playback comes to a halt some pictures before the end of what there is.
    const end = this.video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA ? 0.5 : 0;
    for (let index = 0; index < ranges.length; index++) {
      if (now < ranges.start(index) - 0.001) {
        this.video.currentTime = ranges.start(index);
        return;
      }
      if (now < ranges.end(index) - end) return;
    }
  }
}

const settled = (buffer) => new Promise((done) => buffer.addEventListener("updateend", done, { once: true }));

// Play `body`, a stream of bytes of MIME type `type`, until it ends or `signal` says so; `began` is called when there
// is something to see.
export async function feed(body, type, video, signal, began, limits = LIMITS) {
  const source = new MediaSource();
  const opened = new Promise((done) => source.addEventListener("sourceopen", done, { once: true }));
  if (video.src.startsWith("blob:")) URL.revokeObjectURL(video.src);
  video.src = URL.createObjectURL(source);
  await opened;
  const buffer = new Buffer(source.addSourceBuffer(type), video, limits);
  const skip = () => source.readyState !== "closed" && buffer.skipGap();
  video.addEventListener("waiting", skip, { signal });
  video.addEventListener("seeking", skip, { signal });
  const fragments = new Fragments();
  const reader = body.getReader();
  let shown = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) break;
      for (const piece of fragments.push(value)) {
        await buffer.add(piece);
        if (shown || !buffer.end()) continue;
        shown = true;
        began();
      }
    }
  } finally {
    // What has come can be seen to its end, also where the connection broke.
    if (source.readyState === "open" && !buffer.buffer.updating) source.endOfStream();
  }
}
