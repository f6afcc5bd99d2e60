// The live picture on Parallel VAE Decode: fragmented MP4 through Media Source Extensions while the node runs,
// the finished file afterwards. See nodes/routes.py for the other end.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const SINK = "ParallelVAEDecode";
const KEEP_SECONDS = 60; // of what has been played; a stream may be endless
const players = new WeakMap(); // node -> Player

class Player {
  constructor(node) {
    this.video = document.createElement("video");
    this.video.controls = true;
    this.video.playsInline = true;
    this.video.style.cssText = "width:100%;height:100%;object-fit:contain;background:#000;border-radius:6px";
    const widget = node.addDOMWidget("live", "livetalk_player", this.video, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => 180,
    });
    widget.serialize = false;
  }

  // Play a running stream; a newer one takes its place.
  async watch(name) {
    this.stop();
    const abort = (this.abort = new AbortController());
    try {
      const answer = await api.fetchApi(`/livetalk/live/${name}`, { signal: abort.signal });
      const type = answer.headers.get("Content-Type");
      if (!answer.ok || !window.MediaSource?.isTypeSupported(type)) return;
      await this.feed(answer.body.getReader(), type, abort.signal);
    } catch (error) {
      if (error.name !== "AbortError") console.warn("LiveTalk: the live picture ended:", error);
    }
  }

  async feed(reader, type, signal) {
    const source = new MediaSource();
    const opened = new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
    this.video.src = URL.createObjectURL(source);
    await opened;
    const buffer = source.addSourceBuffer(type);
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) break;
      await this.append(buffer, value);
      this.begin(buffer);
    }
    if (source.readyState === "open") source.endOfStream();
  }

  async append(buffer, piece) {
    const settled = () => new Promise((resolve) => buffer.addEventListener("updateend", resolve, { once: true }));
    buffer.appendBuffer(piece);
    await settled();
    const old = this.video.currentTime - KEEP_SECONDS;
    if (old > KEEP_SECONDS && buffer.buffered.length && buffer.buffered.start(0) < old) {
      buffer.remove(0, old);
      await settled();
    }
  }

  // Whoever came late begins where there is something to see. Browsers may refuse sound before the first click.
  begin(buffer) {
    if (!buffer.buffered.length || !this.video.paused || this.started) return;
    this.started = true;
    this.video.currentTime = Math.max(this.video.currentTime, buffer.buffered.start(0));
    this.video.play().catch(() => {
      this.video.muted = true;
      this.video.play().catch(() => {});
    });
  }

  // Show the finished file, unless it has just been watched.
  show(file) {
    if (this.started) return;
    this.stop();
    this.video.src = api.apiURL(`/view?${new URLSearchParams(file)}`);
  }

  stop() {
    this.abort?.abort();
    this.started = false;
    if (this.video.src.startsWith("blob:")) URL.revokeObjectURL(this.video.src);
  }
}

// Nodes inside of subgraphs have ids such as "5:2".
function playerOf(id) {
  let graph = app.graph;
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node && players.get(node);
}

app.registerExtension({
  name: "livetalk.live",
  setup() {
    api.addEventListener("livetalk.stream", ({ detail }) => playerOf(detail.node)?.watch(detail.stream));
    api.addEventListener("executed", ({ detail }) => {
      const file = detail.output?.livetalk_video?.[0];
      if (file) playerOf(detail.display_node ?? detail.node)?.show(file);
    });
  },
  nodeCreated(node) {
    if (node.comfyClass !== SINK) return;
    const player = new Player(node);
    players.set(node, player);
    const removed = node.onRemoved;
    node.onRemoved = function (...rest) {
      player.stop();
      return removed?.apply(this, rest);
    };
  },
});
